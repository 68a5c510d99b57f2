package classify

import (
	"context"
	"errors"
	"testing"
)

// The linear method takes long on many texts; it ends with the context, also when that
// ends after the texts are indexed.
func TestLinearCanBeCancelled(t *testing.T) {
	c := &corpus{}
	for i := range 40 {
		c.ids = append(c.ids, int32(i%7), int32(i%3))
		c.ends = append(c.ends, len(c.ids))
		c.labels = append(c.labels, []int32{int32(i % 2)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &linear{classes: 2}
	docs := l.index(ctx, c)
	cancel()
	if err := l.train(ctx, docs, c.labels, l.ratios(docs, c.labels), 1e-3, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("train: %v", err)
	}
	if _, err := fitLinear(ctx, c, c, 2, false, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("fitLinear: %v", err)
	}
}
