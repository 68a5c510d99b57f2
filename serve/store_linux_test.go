package serve

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A named pipe in a store is set aside; to open it would wait for a writer.
func TestStoreOfAPipe(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "x"+storeSuffix), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Options{})
	defer s.Close(context.Background())
	opened := make(chan error, 1)
	go func() {
		_, lost, err := s.OpenStore(context.Background(), dir)
		if lost != 1 {
			t.Errorf("%d are lost, want one", lost)
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the store does not open")
	}
	if info, err := os.Stat(filepath.Join(dir, "server.lock")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the lock is %v, %v; want a file for its owner alone", info, err)
	}
}
