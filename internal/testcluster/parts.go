package testcluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// Parts of the cluster, as [Cluster.Restart] and others take them: the program's name.
const (
	Containerd        = "containerd"
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	S3Server          = "versitygw"
)

const (
	readyWithin = 5 * time.Minute
	stopWithin  = 2 * time.Minute
)

// part is one program of the cluster that runs on the node beside the others.
type part struct {
	name  string
	path  string // as seen on the node
	args  []string
	env   []string
	after []string                        // parts that must be ready before
	ready func(ctx context.Context) error // asks once
}

// parts returns all of them, in the order of starting.
func (c *Cluster) parts() []part {
	return []part{
		{name: Containerd, path: "/usr/local/bin/containerd", ready: c.containerdReady},
		{name: Etcd, path: c.tool("etcd", "etcd"), args: c.etcdArgs(), ready: c.http("http://127.0.0.1:2379/readyz")},
		{name: S3Server, path: c.tool("versitygw", "versitygw"), args: c.s3Args(), env: s3Env, ready: c.http(s3URL + s3Health)},
		{name: APIServer, path: c.tool("kubernetes", APIServer), args: c.apiServerArgs(), after: []string{Etcd}, ready: c.apiServerReady},
		{name: ControllerManager, path: c.tool("kubernetes", ControllerManager), args: c.controllerManagerArgs(), after: []string{APIServer}, ready: c.http("https://127.0.0.1:10257/healthz")},
		{name: Scheduler, path: c.tool("kubernetes", Scheduler), args: c.schedulerArgs(), after: []string{APIServer}, ready: c.http("https://127.0.0.1:10259/readyz")},
		{name: Kubelet, path: "/usr/local/bin/kubelet", args: c.kubeletArgs(), after: []string{APIServer, Containerd}, ready: c.kubeletReady},
	}
}

func (c *Cluster) part(name string) (part, error) {
	var names []string
	for _, p := range c.parts() {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return part{}, fmt.Errorf("the cluster has no part %q, only %s", name, strings.Join(names, ", "))
}

func (c *Cluster) etcdArgs() []string {
	return []string{
		"--data-dir", c.etcd(),
		"--unsafe-no-fsync", // its data ends with the cluster
		"--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380",
	}
}

func (c *Cluster) apiServerArgs() []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		// The service address is the node's own, so that no packets need to be redirected.
		"--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + nodeIP,
		"--service-cluster-ip-range=" + serviceNet,
		"--tls-cert-file=" + c.cert("apiserver"), "--tls-private-key-file=" + c.key("apiserver"),
		"--client-ca-file=" + c.cert(authority),
		"--kubelet-certificate-authority=" + c.cert(authority),
		"--kubelet-client-certificate=" + c.cert("apiserver-kubelet-client"),
		"--kubelet-client-key=" + c.key("apiserver-kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.key("service-accounts"),
		"--service-account-signing-key-file=" + c.key("service-accounts"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	}
}

func (c *Cluster) controllerManagerArgs() []string {
	config := c.clientConfig(ControllerManager)
	return []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--service-account-private-key-file=" + c.key("service-accounts"),
		"--root-ca-file=" + c.cert(authority),
		"--use-service-account-credentials=true",
		"--leader-elect=false",
	}
}

func (c *Cluster) schedulerArgs() []string {
	config := c.clientConfig(Scheduler)
	return []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--leader-elect=false",
	}
}

func (c *Cluster) kubeletArgs() []string {
	return []string{
		"--config=/etc/kubernetes/kubelet.yaml",
		"--kubeconfig=" + c.clientConfig(Kubelet),
		"--node-ip=" + nodeIP,
		"--node-labels=" + RuntimeLabel + "=true",
	}
}

// run starts a part. Its parent is the node's init, which reaps it like any daemon.
func (c *Cluster) run(p part) error {
	log, err := os.OpenFile(c.Log(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command("/bin/sh", append([]string{"-c", `"$@" </dev/null & echo $! >&3`, "sh", p.path}, p.args...)...)
	command.Env = append(c.nodeEnv(), p.env...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals of a terminal must not reach it
	number, err := c.printed(command)
	if err != nil {
		return err
	}
	pid, err := c.HostPID(number)
	if err != nil {
		return err
	}
	if pid == 0 {
		return errors.New("it ended at once")
	}
	identity, err := identify(pid)
	if err != nil {
		return err
	}
	return c.setProcess(p.name, identity)
}

// printed runs the command on the node and returns the number that it writes to descriptor 3.
func (c *Cluster) printed(command *exec.Cmd) (int, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	command.ExtraFiles = []*os.File{writer}
	err = c.RunOnNode(command)
	if err = errors.Join(err, writer.Close()); err != nil {
		return 0, err
	}
	line := make([]byte, 32)
	n, err := reader.Read(line)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(line[:n])))
}

// wait returns when the part is ready. It fails if the part has ended.
func (c *Cluster) wait(ctx context.Context, p part) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var last error
	err := poll.Until(ctx, func() (bool, error) {
		if !c.process(p.name).alive() {
			return false, errors.New("it has ended")
		}
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		last = p.ready(asking)
		return last == nil, nil
	})
	if err == nil {
		return nil
	}
	if last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, c.logTail(p.name, 15))
}

// http returns a check that requests a page.
func (c *Cluster) http(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		client := &http.Client{Transport: &http.Transport{
			DialContext:       c.Dial,
			DisableKeepAlives: true,
			// Each program makes a certificate of its own for the loopback device.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
			return fmt.Errorf("%s: %s: %s", url, response.Status, text)
		}
		return nil
	}
}

func (c *Cluster) apiServerReady(ctx context.Context) error {
	_, err := c.get(ctx, "/readyz")
	return err
}

func (c *Cluster) containerdReady(ctx context.Context) error {
	return c.output(c.NodeCommand(ctx, "/usr/local/bin/ctr", "plugins", "list", "-q"))
}

// kubeletReady asks the kubelet itself, then asks the API server whether the node is ready: during a restart of
// the kubelet the node is shown as ready all the time.
func (c *Cluster) kubeletReady(ctx context.Context) error {
	if err := c.http("http://127.0.0.1:10248/healthz")(ctx); err != nil {
		return err
	}
	return c.nodeReady(ctx)
}

// Log is the path of a part's log; it stays when the cluster is down.
func (c *Cluster) Log(part string) string { return filepath.Join(c.logs(), part+".log") }

func (c *Cluster) logTail(part string, lines int) string {
	text, err := os.ReadFile(c.Log(part))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// PID is the process id of a part on the machine; 0 if it does not run.
func (c *Cluster) PID(part string) int {
	if p := c.process(part); p.alive() {
		return p.PID
	}
	return 0
}

// Terminate ends a part in the regular way and waits for its end.
func (c *Cluster) Terminate(ctx context.Context, part string) error {
	return c.end(ctx, part, syscall.SIGTERM)
}

// Kill9 kills a part and waits for its end.
func (c *Cluster) Kill9(ctx context.Context, part string) error {
	return c.end(ctx, part, syscall.SIGKILL)
}

func (c *Cluster) end(ctx context.Context, name string, signal syscall.Signal) error {
	if _, err := c.part(name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	p := c.process(name)
	if err := p.signal(signal); err != nil {
		return err
	}
	if err := p.gone(ctx); err != nil {
		return fmt.Errorf("wait for the end of %s: %w", name, err)
	}
	return nil
}

// Start starts a part that was ended, and returns when it is ready.
func (c *Cluster) Start(ctx context.Context, name string) error {
	p, err := c.part(name)
	if err != nil {
		return err
	}
	if c.process(name).alive() {
		return fmt.Errorf("%s is running already", name)
	}
	if err := c.run(p); err != nil {
		return fmt.Errorf("start %s: %w\n%s", name, err, c.logTail(name, 15))
	}
	return c.wait(ctx, p)
}

// Restart ends a part in the regular way and starts it again; it returns when the part is ready.
func (c *Cluster) Restart(ctx context.Context, name string) error {
	if err := c.Terminate(ctx, name); err != nil {
		return err
	}
	return c.Start(ctx, name)
}
