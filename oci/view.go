package oci

// View is an image's files as a container would see them, not mounted yet, and the command that a container
// would run in them. It is also the JSON that wasm-client view prints.
type View struct {
	Mounts []Mount  `json:"mounts"`
	Args   []string `json:"args"` // the entry point and its arguments
	Env    []string `json:"env"`
	Cwd    string   `json:"cwd"`
}

// Mount is one mount of a view, as the snapshotter returns it.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Target  string   `json:"target"`
	Options []string `json:"options"`
}
