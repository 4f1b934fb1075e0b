// keyring prints the serial number of its session keyring.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(id)
}
