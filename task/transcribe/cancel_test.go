package transcribe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReadersCanBeCancelled reads files whose formats do not matter with a cancelled
// context.
func TestReadersCanBeCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(path, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadLM(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadLM: %v", err)
	}
	if _, err := ReadLexicon(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadLexicon: %v", err)
	}
}
