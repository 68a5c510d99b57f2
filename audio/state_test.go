package audio

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Resampling and features that are written and read between any two pieces give what those
// of the whole are; damaged states are refused and change nothing.
func TestStatesOfPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	x := make([]float32, 9000)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)/9) + 0.1*r.NormFloat64())
	}
	type half interface {
		Write(dst, src []float32) []float32
		Flush(dst []float32) []float32
		MarshalBinary() ([]byte, error)
		UnmarshalBinary(b []byte) error
	}
	makers := map[string]func() half{
		"features": func() half {
			return NewExtractor(Spec{Rate: 16000, Window: 400, Hop: 160, Bands: 20, MFCC: 5, Preemphasis: 0.97})
		},
	}
	for _, rates := range [][2]int{{16000, 16000}, {8000, 16000}, {44100, 16000}, {48000, 8000}, {11025, 16001}} {
		makers[fmt.Sprint(rates)] = func() half { return NewResampler(rates[0], rates[1]) }
	}
	for name, made := range makers {
		whole := made()
		want := whole.Flush(whole.Write(nil, x))
		var got []float32
		one := made()
		for at := 0; at < len(x); {
			end := min(len(x), at+r.IntN(1500))
			got = one.Write(got, x[at:end])
			at = end
			state, err := one.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			one = made()
			if err := one.UnmarshalBinary(state); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, wrong := range [][]byte{nil, state[:len(state)-1], append(slices.Clone(state), 1), slices.Concat(state[:8], []byte{255, 255, 255, 255, 255, 255, 255, 255}, state[16:])} {
				if one.UnmarshalBinary(wrong) == nil {
					t.Errorf("%s: %d bytes are accepted", name, len(wrong))
				}
			}
		}
		if got = one.Flush(got); !slices.Equal(got, want) {
			t.Errorf("%s: %d numbers differ from the %d of the whole", name, len(got), len(want))
		}
	}
}
