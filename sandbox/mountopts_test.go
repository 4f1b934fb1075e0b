package sandbox

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMountOptions(t *testing.T) {
	const atime = unix.MOUNT_ATTR__ATIME
	for text, want := range map[string]mountOptions{
		"":                       {},
		"bind":                   {bind: true},
		"rbind,ro":               {bind: true, recursive: true, set: unix.MOUNT_ATTR_RDONLY},
		"ro,rw":                  {clear: unix.MOUNT_ATTR_RDONLY},
		"rw,ro":                  {set: unix.MOUNT_ATTR_RDONLY},
		"rro":                    {setRec: unix.MOUNT_ATTR_RDONLY},
		"rrw":                    {clearRec: unix.MOUNT_ATTR_RDONLY},
		"ro,rro":                 {set: unix.MOUNT_ATTR_RDONLY, setRec: unix.MOUNT_ATTR_RDONLY},
		"nosuid,nodev,noexec":    {set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC},
		"noexec,exec":            {clear: unix.MOUNT_ATTR_NOEXEC},
		"nosymfollow":            {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"noatime":                {set: unix.MOUNT_ATTR_NOATIME, clear: atime},
		"noatime,strictatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: atime},
		"strictatime,relatime":   {clear: atime},
		"relatime":               {clear: atime}, // MOUNT_ATTR_RELATIME is 0
		"rnoatime":               {setRec: unix.MOUNT_ATTR_NOATIME, clearRec: atime},
		"rslave":                 {propagation: []propagation{{unix.MS_SLAVE, true}}},
		"shared,unbindable":      {propagation: []propagation{{unix.MS_SHARED, false}, {unix.MS_UNBINDABLE, false}}},
		"defaults,async,remount": {},
		"size=64m,mode=755":      {data: []string{"size=64m", "mode=755"}},
		"newinstance,ro,gid=5":   {set: unix.MOUNT_ATTR_RDONLY, data: []string{"newinstance", "gid=5"}},
	} {
		var options []string
		if text != "" {
			options = strings.Split(text, ",")
		}
		got, err := parseMountOptions(options)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseMountOptionsRefuses(t *testing.T) {
	for _, option := range []string{"idmap", "ridmap", "idmap=uids=0-1-2", "ridmap=gids=0-1-2", "tmpcopyup"} {
		if _, err := parseMountOptions([]string{"bind", option}); err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("%q: got %v", option, err)
		}
	}
}

// Every option is an attribute, a propagation, a known word or the file system's; none is lost. No
// attribute is both set and cleared, except that of the access time, which has more than two values.
func FuzzParseMountOptions(f *testing.F) {
	for name := range attributes {
		f.Add("bind," + name + ",r" + name)
	}
	f.Add("ro,rw,rro,rrw,noatime,strictatime,size=1m,rslave,,=,x=y")
	f.Fuzz(func(t *testing.T, text string) {
		options := strings.Split(text, ",")
		m, err := parseMountOptions(options)
		if err != nil {
			return
		}
		kept := 0
		for _, option := range options {
			_, plain := attributes[option]
			_, recursive := attributes[strings.TrimPrefix(option, "r")]
			_, spreads := propagations[option]
			if !plain && !(recursive && strings.HasPrefix(option, "r")) && !spreads && !ignoredOptions[option] && option != "bind" && option != "rbind" {
				kept++
			}
		}
		if kept != len(m.data) {
			t.Errorf("%q: %d options for the file system, got %q", text, kept, m.data)
		}
		if both := (m.set & m.clear &^ unix.MOUNT_ATTR__ATIME) | (m.setRec & m.clearRec &^ unix.MOUNT_ATTR__ATIME); both != 0 {
			t.Errorf("%q: sets and clears %#x", text, both)
		}
		if m.recursive && !m.bind {
			t.Errorf("%q: recursive but no bind", text)
		}
	})
}
