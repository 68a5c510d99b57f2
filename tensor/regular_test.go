package tensor_test

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// batch is 3 rows of 4 steps of 2 features: 0, 1, 4, 9, ...
func batch() (v []float32, lengths []int32) {
	for i := range 24 {
		v = append(v, float32(i*i))
	}
	return v, []int32{4, 0, 2}
}

// The penalties are means over true steps, and over true pairs of steps.
func TestPenalties(t *testing.T) {
	v, lengths := batch()
	var squares, pairs, n, m float64
	for b, length := range lengths {
		for i := range int(length) {
			for f := range 2 {
				y := float64(v[(b*4+i)*2+f])
				squares, n = squares+y*y, n+1
				if i > 0 {
					d := y - float64(v[(b*4+i-1)*2+f])
					pairs, m = pairs+d*d, m+1
				}
			}
		}
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	x := tape.Sequences(v, lengths, 3, 4, 2)
	for _, c := range []struct {
		name string
		got  float32
		want float64
	}{
		{"activity", tensor.ActivityPenalty(x, 2).Item(), 2 * squares / n},
		{"temporal", tensor.TemporalPenalty(x, 3).Item(), 3 * pairs / m},
		{"temporal of one step", tensor.TemporalPenalty(tape.Input(v, 24, 1, 1), 3).Item(), 0},
	} {
		if math.Abs(float64(c.got)-c.want) > 1e-5*c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestPenaltiesGradients(t *testing.T) {
	m := &struct{ W *tensor.Param }{tensor.NewParam("w", nil, 3, 2)}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	m.W.Write([]float32{0.1, -0.4, 0.3, 0.2, 0.7, -0.1})
	v, lengths := batch()
	for i := range v {
		v[i] = float32(math.Sin(float64(v[i])))
	}
	tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
		y := tensor.Linear(tape.Sequences(v, lengths, 3, 4, 2), tape.Param(m.W), nil)
		return tensor.Add(tensor.ActivityPenalty(y, 1), tensor.TemporalPenalty(y, 2))
	})
}

// One mask a row for all steps, whatever the lengths; inference drops nothing.
func TestDropoutSequence(t *testing.T) {
	const B, T, F, p = 40, 6, 50, 0.3
	ones := make([]float32, B*T*F)
	for i := range ones {
		ones[i] = 1
	}
	lengths := make([]int32, B)
	for b := range lengths {
		lengths[b] = int32(1 + b*5%T)
	}
	drop := func(mode tensor.Mode, lengths []int32) []float32 {
		tape := tensor.NewTape(tensor.CPU(), mode)
		x := tape.Input(ones, B, T, F)
		if lengths != nil {
			x = tape.Sequences(ones, lengths, B, T, F)
		}
		return tensor.BatchMajor(tensor.DropoutSequence(tensor.TimeMajor(x), p)).Data()
	}
	full, ragged := drop(tensor.Train, nil), drop(tensor.Train, lengths)
	zeros := 0
	for b := range B {
		for f := range F {
			first := full[b*T*F+f]
			if first == 0 {
				zeros++
			} else if math.Abs(float64(first)-1/(1-p)) > 1e-6 {
				t.Fatalf("a kept element is %v", first)
			}
			for i := range T {
				at := (b*T+i)*F + f
				if full[at] != first {
					t.Fatalf("row %d step %d has another mask", b, i)
				}
				if want := first; i < int(lengths[b]) && ragged[at] != want {
					t.Fatalf("row %d step %d: %v among shorter rows, %v among full ones", b, i, ragged[at], want)
				}
			}
		}
	}
	if share := float64(zeros) / (B * F); math.Abs(share-p) > 0.04 {
		t.Errorf("%v of the mask is zero, want %v", share, p)
	}
	for _, v := range drop(tensor.Infer, nil) {
		if v != 1 {
			t.Fatal("inference drops")
		}
	}
}
