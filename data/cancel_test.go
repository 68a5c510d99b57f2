package data

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestReadPanelIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := write(t, "x.csv", "a\n"+strings.Repeat("1\n", sniffed))
	if p, err := ReadPanel(ctx, path, nil); p != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", p, err)
	}
	if p, err := ReadPanel(t.Context(), path, nil); err != nil || p.Series[0].Len() != sniffed {
		t.Error(err)
	}
}
