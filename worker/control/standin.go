package control

// RoleStandIn is the role of a worker that waits for Daemon.Start in the place of a native program and then
// becomes that program (execve(2)). It takes no order and sends no report: its environment contains
// everything that it needs, see StandInEnv. Its other half is standin.c of package worker.
const RoleStandIn = "stand-in"

// StandInEnv returns the environment of a stand-in for the file program, which is to run in "/" with
// environment env. The stand-in's arguments are the program's own.
func StandInEnv(program string, env []string) []string {
	return append([]string{RoleEnv + "=" + RoleStandIn, program}, env...)
}
