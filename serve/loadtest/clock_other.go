//go:build !linux

package loadtest

import (
	"context"
	"time"
)

// clock waits for moments as exactly as the runtime's timers do.
type clock struct{}

func newClock(context.Context) *clock { return nil }

func (*clock) stop() {}

// until waits for a moment, or for the end of ctx.
func (*clock) until(ctx context.Context, t time.Time) { sleepUntil(ctx, t) }

// processorTime is not known here.
func processorTime() time.Duration { return 0 }
