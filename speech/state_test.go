package speech

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A pipeline that is written and read between any two pieces gives the steps of one that is
// not; damaged states are refused and change nothing.
func TestPipelineState(t *testing.T) {
	const width, frames = 3, 60
	r := rand.New(rand.NewPCG(4, 4))
	x := make([]float32, width*frames)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for deltas := range 3 {
		for _, c := range []Setup{{Stack: 1, Normalize: "running"}, {Stack: 3, Normalize: "running"}, {Stack: 2, Normalize: "none"}, {Stack: 4, StackStride: 2, Normalize: "global"}} {
			t.Run(fmt.Sprint(deltas, c.Stack, c.Normalize), func(t *testing.T) {
				c.Deltas = deltas
				stats := &Statistics{}
				for range width * (deltas + 1) {
					stats.Mean, stats.Deviation = append(stats.Mean, r.NormFloat64()), append(stats.Deviation, 1+r.Float64())
				}
				f := &Frontend{width, stats, &c}
				want := f.Steps(slices.Clone(x))
				var got []float32
				p := f.Pipeline()
				for at := 0; at < frames; {
					end := min(frames, at+r.IntN(5))
					got = p.Write(got, slices.Clone(x[at*width:end*width]))
					at = end
					state, err := p.MarshalBinary()
					if err != nil {
						t.Fatal(err)
					}
					p = f.Pipeline()
					if err := p.UnmarshalBinary(state); err != nil {
						t.Fatal(err)
					}
					for _, wrong := range [][]byte{nil, state[:len(state)-1], append(slices.Clone(state), 1), slices.Concat([]byte{255, 255, 255, 255, 255, 255, 255, 127}, state[8:])} {
						if p.UnmarshalBinary(wrong) == nil {
							t.Errorf("%d bytes are accepted", len(wrong))
						}
					}
					if again, err := p.MarshalBinary(); err != nil || !bytes.Equal(again, state) {
						t.Fatal("what was refused has changed the pipeline")
					}
				}
				if got = p.Flush(got); !slices.Equal(got, want) {
					t.Errorf("%d numbers differ from the %d of the whole", len(got), len(want))
				}
			})
		}
	}
}
