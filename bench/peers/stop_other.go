//go:build !unix

package main

import "os/exec"

// Where processes cannot be stopped only the pause between two blocks lets their threads go to sleep.

// If processes cannot be stopped, their threads only sleep in the pause between
// two blocks.
func ownGroup(*exec.Cmd) {}
func stop(*exec.Cmd)     {}
func resume(*exec.Cmd)   {}
