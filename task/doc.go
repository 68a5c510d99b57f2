// Package task says what a task is.
package task
