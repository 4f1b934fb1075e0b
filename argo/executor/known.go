package executor

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
)

// Limits of what Known looks at. The kernel allows 128 KiB for one string, execve(2).
const (
	maxArgs     = 64
	maxEnv      = 16 << 10
	maxVariable = 128 << 10
)

// Commands of argoexec.
const (
	initVerb = "init"
	waitVerb = "wait"
	killVerb = "kill"
)

// Known reports by its error why a container with this command line and environment is not stood in
// for. The error is one line. Known reads no file, and its cost is bounded by the template's 128 KiB.
func Known(args, env []string) error {
	_, err := parse(args, env)
	return err
}

// command is a command line of argoexec and what its environment says.
type command struct {
	verb        string
	signal, pid string // of kill
	level       slog.Level
	json        bool // the log's format

	template      []byte // of init
	podName       string
	node          string
	workflow      string
	workflowUID   string
	instanceID    string
	scriptOutput  bool
	deadline      time.Time     // zero: none
	grace         time.Duration // between SIGTERM and SIGKILL
	progressFile  string        // below the volume; empty: no progress
	progressRead  time.Duration
	progressPatch time.Duration
}

func parse(args, env []string) (command, error) {
	c, err := parseArgs(args)
	if err != nil || c.verb == killVerb {
		return c, err
	}
	variables, err := parseEnv(env)
	if err != nil {
		return command{}, err
	}
	if err := variables.known(); err != nil {
		return command{}, err
	}
	if err := c.settings(variables); err != nil {
		return command{}, err
	}
	return c, nil
}

// parseArgs reads a command line as upstream's cobra does: flags stand anywhere, and the last of
// several counts.
func parseArgs(args []string) (command, error) {
	c := command{}
	if len(args) == 0 || len(args) > maxArgs {
		return c, fmt.Errorf("its command line has %d words", len(args))
	}
	if args[0] != "argoexec" && (!path.IsAbs(args[0]) || path.Base(args[0]) != "argoexec") {
		return c, fmt.Errorf("its program is %s, not argoexec", quote(args[0]))
	}
	var words []string
	for rest := args[1:]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if !strings.HasPrefix(word, "-") || word == "-" {
			words = append(words, word)
			continue
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			if len(rest) == 0 {
				return c, fmt.Errorf("flag %s of argoexec has no value", quote(name))
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.flag(name, value); err != nil {
			return c, err
		}
	}
	return c, c.words(words)
}

func (c *command) flag(name, value string) error {
	bad := fmt.Errorf("flag %s of argoexec has the unknown value %s", quote(name), quote(value))
	switch name {
	case "--loglevel":
		switch value {
		case "debug", "info", "warn", "error":
			return c.level.UnmarshalText([]byte(value))
		}
		return bad
	case "--log-format":
		if value != "text" && value != "json" {
			return bad
		}
		c.json = value == "json"
		return nil
	case "--gloglevel":
		// It is the level of a library's log that this program does not have.
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return bad
		}
		return nil
	}
	return fmt.Errorf("flag %s of argoexec is not known", quote(name))
}

func (c *command) words(words []string) error {
	switch {
	case len(words) == 0:
		return errors.New("argoexec has no command")
	case len(words) == 1 && (words[0] == initVerb || words[0] == waitVerb):
		c.verb = words[0]
		return nil
	case len(words) == 3 && words[0] == killVerb:
		c.verb, c.signal, c.pid = words[0], words[1], words[2]
		return nil
	}
	return fmt.Errorf("argoexec's command is %s, with %d arguments, and not init or wait", quote(words[0]), len(words)-1)
}

// variables are those of an environment.
type variables map[string]string

// parseEnv splits an environment. Of equal names the first counts, as for Go programs.
func parseEnv(env []string) (variables, error) {
	if len(env) > maxEnv {
		return nil, fmt.Errorf("its environment has %d variables", len(env))
	}
	v := make(variables, len(env))
	for _, variable := range env {
		name, value, ok := strings.Cut(variable, "=")
		if !ok || name == "" {
			continue
		}
		if len(value) > maxVariable {
			return nil, fmt.Errorf("variable %s has %d bytes", quote(name), len(value))
		}
		if _, ok := v[name]; !ok {
			v[name] = value
		}
	}
	return v, nil
}

// harmless are variables of Argo that change nothing in what is stood in for: they are about the main
// containers, artifacts, and S3.
var harmless = map[string]bool{
	"ARGO_CONTAINER_NAME": true, "ARGO_POD_UID": true, "ARGO_CONTAINER_ARGS_FILE": true, "ARGO_TRACE": true,
	"ARGO_DEBUG_PAUSE_BEFORE": true, "ARGO_DEBUG_PAUSE_AFTER": true,
	// Honoured, see settings.
	"ARGO_POD_NAME": true, "ARGO_NODE_ID": true, "ARGO_WORKFLOW_NAME": true, "ARGO_WORKFLOW_UID": true, "ARGO_INSTANCE_ID": true,
	"ARGO_INCLUDE_SCRIPT_OUTPUT": true, "ARGO_DEADLINE": true, "ARGO_TERMINATION_GRACE_PERIOD_SECONDS": true, "ARGO_TEMPLATE": true,
	"ARGO_PROGRESS_FILE": true, "ARGO_PROGRESS_PATCH_TICK_DURATION": true, "ARGO_PROGRESS_FILE_TICK_DURATION": true,
}

// refused are variables that change what client-go, net/http or Go's runtime does, if they are set at
// all. argoexec honours them, and this program does not.
var refused = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"KUBECONFIG", "KUBERNETES_MASTER", "POD_NAMESPACE", "KUBE_CLIENT_BACKOFF_BASE", "KUBE_CLIENT_BACKOFF_DURATION",
	"DISABLE_HTTP2", "HTTP2_READ_IDLE_TIMEOUT_SECONDS", "HTTP2_PING_TIMEOUT_SECONDS", "GODEBUG",
}

// known reports whether a variable is set that is not understood.
func (v variables) known() error {
	for _, name := range refused {
		if v[name] != "" {
			return fmt.Errorf("variable %s is set, which only argoexec honours", name)
		}
	}
	for name, value := range v {
		if strings.HasPrefix(name, "KUBE_FEATURE_") && value != "" {
			return fmt.Errorf("variable %s is set, which only argoexec honours", quote(name))
		}
		if strings.HasPrefix(name, "ARGO_") && !harmless[name] && !serviceLink(name) && value != "" {
			return fmt.Errorf("variable %s is not known, an Argo of another version may have set it", quote(name))
		}
	}
	return v.parsable()
}

// parsable refuses values that make argoexec fail when it starts. Valid ones are about requests that
// only templates with artifacts make.
func (v variables) parsable() error {
	for _, prefix := range []string{"EXECUTOR_RETRY_BACKOFF_", "RETRY_BACKOFF_"} {
		for suffix, parse := range map[string]func(string) error{
			"STEPS":    func(s string) error { _, err := strconv.Atoi(s); return err },
			"DURATION": func(s string) error { _, err := time.ParseDuration(s); return err },
			"FACTOR":   func(s string) error { _, err := strconv.ParseFloat(s, 64); return err },
			"JITTER":   func(s string) error { _, err := strconv.ParseFloat(s, 64); return err },
		} {
			value := v[prefix+suffix]
			if value != "" && parse(value) != nil {
				return fmt.Errorf("variable %s has the value %s, which argoexec refuses", prefix+suffix, quote(value))
			}
		}
	}
	return nil
}

// serviceLink reports whether the kubelet sets such a variable for a Service of the namespace, for
// instance for one called argo-server (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
func serviceLink(name string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_SERVICE_PORT") || strings.HasSuffix(name, "_PORT") {
		return true
	}
	if strings.Contains(name, "_SERVICE_PORT_") {
		return true
	}
	_, rest, ok := strings.Cut(name, "_PORT_")
	if !ok {
		return false
	}
	number, protocol, _ := strings.Cut(rest, "_")
	protocol, what, _ := strings.Cut(protocol, "_")
	if _, err := strconv.ParseUint(number, 10, 16); err != nil {
		return false
	}
	switch protocol {
	case "TCP", "UDP", "SCTP":
	default:
		return false
	}
	return what == "" || what == "PROTO" || what == "PORT" || what == "ADDR"
}

// settings reads what the controller sets. Whatever it would not set is left to argoexec.
func (c *command) settings(v variables) error {
	for name, to := range map[string]*string{
		"ARGO_POD_NAME": &c.podName, "ARGO_NODE_ID": &c.node, "ARGO_WORKFLOW_NAME": &c.workflow, "ARGO_WORKFLOW_UID": &c.workflowUID,
		"KUBERNETES_SERVICE_HOST": new(string), "KUBERNETES_SERVICE_PORT": new(string),
	} {
		if *to = v[name]; *to == "" {
			return fmt.Errorf("variable %s is not set", name)
		}
	}
	c.instanceID = v["ARGO_INSTANCE_ID"]
	c.scriptOutput = v["ARGO_INCLUDE_SCRIPT_OUTPUT"] == "true"
	var err error
	if c.deadline, err = time.Parse(time.RFC3339, v["ARGO_DEADLINE"]); err != nil {
		return fmt.Errorf("variable ARGO_DEADLINE is %s, which is not a time", quote(v["ARGO_DEADLINE"]))
	}
	if err := c.graceSetting(v["ARGO_TERMINATION_GRACE_PERIOD_SECONDS"]); err != nil {
		return err
	}
	if err := c.progressSettings(v); err != nil {
		return err
	}
	return c.templateSetting(v)
}

// defaultGrace is that of pods.
const defaultGrace = 30 * time.Second

func (c *command) graceSetting(value string) error {
	c.grace = defaultGrace
	seconds, _ := strconv.ParseInt(value, 10, 64) // what is not a number counts as 0, as from upstream
	if seconds > math.MaxInt64/int64(time.Second) {
		return fmt.Errorf("variable ARGO_TERMINATION_GRACE_PERIOD_SECONDS is %s, which is too much", quote(value))
	}
	if seconds > 0 {
		c.grace = time.Duration(seconds) * time.Second
	}
	return nil
}

func (c *command) progressSettings(v variables) error {
	for name, to := range map[string]*time.Duration{
		"ARGO_PROGRESS_FILE_TICK_DURATION": &c.progressRead, "ARGO_PROGRESS_PATCH_TICK_DURATION": &c.progressPatch,
	} {
		*to, _ = time.ParseDuration(v[name]) // what is not a duration counts as 0, as from upstream
		if *to < 0 {
			return fmt.Errorf("variable %s is %s, which is below zero", name, quote(v[name]))
		}
	}
	if c.progressRead == 0 || c.progressPatch == 0 {
		return nil
	}
	file, ok := strings.CutPrefix(v["ARGO_PROGRESS_FILE"], varRunArgo+"/")
	if !ok || path.Clean("/"+file) != "/"+file {
		return fmt.Errorf("variable ARGO_PROGRESS_FILE is %s, which is not below %s", quote(v["ARGO_PROGRESS_FILE"]), varRunArgo)
	}
	c.progressFile = file
	return nil
}

func (c *command) templateSetting(v variables) error {
	value, ok := v["ARGO_TEMPLATE"]
	switch {
	case c.verb == waitVerb && ok:
		return errors.New("variable ARGO_TEMPLATE is set for wait, which gets its template from a file")
	case c.verb == waitVerb:
		return nil
	case !ok:
		return errors.New("variable ARGO_TEMPLATE is not set")
	case value == "offloaded":
		return errors.New("its template is too large for a variable, and lies in a ConfigMap")
	}
	c.template = []byte(value)
	return Supported(c.template)
}

// quote makes text of others safe and short for one line of a log.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
