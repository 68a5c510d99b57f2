package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// The memory that is left is that of the smallest control group, without the pages of files.
func TestRoomLeft(t *testing.T) {
	if r := roomLeft(); r == nil || r.free <= 0 || r.all < r.free {
		t.Fatalf("this process has room %v", r)
	}
	before := controlGroups
	defer func() { controlGroups = before }()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"max": "104857600\n", "current": "83886080\n", "none": "max\n",
		"memory.stat": "anon 41943040\ninactive_file 20971520\nactive_file 10485760\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	group := controlGroup{dir: dir, limit: "/max", usage: "/current"}
	controlGroups = []controlGroup{{dir: dir, limit: "/none", usage: "/current"}, group}
	if r := roomLeft(); r.free != 50*mebibyte || r.all != 100*mebibyte {
		t.Errorf("room %v, want 50 of 100 MiB", r)
	}
}
