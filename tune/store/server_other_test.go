//go:build !linux

package store

import "testing"

// newPostgresStudy skips the test: only on Linux a server is started.
func newPostgresStudy(t testing.TB) string {
	t.Skip("PostgreSQL is tested on Linux")
	return ""
}
