// Command hello-go is the smallest guest in Go, built for wasip1.
package main

import "fmt"

func main() {
	fmt.Println("hello from Go")
}
