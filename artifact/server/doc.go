// Package server serves the artifacts that a pod asks for by annotation: objects of S3 stores as files of a container, and
// what it writes as objects. It runs in a process of its own in the pod, which has the credentials and no privileges.
//
// It never mounts, never reads a file of the container, and logs no credential.
package server
