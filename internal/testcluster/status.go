package testcluster

import "fmt"

// PartStatus is a part and whether it runs.
type PartStatus struct {
	Name    string
	Version string
	PID     int // 0 if it does not run
	Log     string
}

func (s PartStatus) String() string {
	if s.PID == 0 {
		return fmt.Sprintf("%-24s %-10s does not run  %s", s.Name, s.Version, s.Log)
	}
	return fmt.Sprintf("%-24s %-10s pid %-8d  %s", s.Name, s.Version, s.PID, s.Log)
}

// Status returns the cluster's parts and whether they run.
func (c *Cluster) Status() []PartStatus {
	var all []PartStatus
	for _, p := range c.parts() {
		all = append(all, PartStatus{Name: p.name, Version: c.version(p.name), PID: c.PID(p.name), Log: c.Log(p.name)})
	}
	return all
}

// Env returns variables for scripts. KUBECONFIG works in the cluster's network only.
func (c *Cluster) Env() map[string]string {
	return map[string]string{
		"KUBECONFIG":          c.kubeconfig(),
		"CLUSTER_PID":         fmt.Sprint(c.state.Holder.PID),
		"CLUSTER_LOGS":        c.logs(),
		"CLUSTER_S3_ENDPOINT": s3Endpoint,
	}
}
