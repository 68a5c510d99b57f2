package graph

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// Tolerance is the largest difference between two float32 computations that are
// considered equal: absolute for values up to 1, relative above.
const Tolerance = 1e-4

// DynamicTolerance is used instead for graphs with [DynamicLSTM]: six of the 127 steps to which it rounds
// a state from 0 to 1. A state is off by half a step for each of the steps of time that the cell remembers, and
// by more where the greatest state of the batch is small in one direction and large in the other.
const DynamicTolerance = 6. / 127

// Parity is the comparison of two computations of a network on random input.
type Parity struct {
	Input   string  // what went in, such as "x float32[3,5,8]"
	Values  int     // numbers compared
	MaxDiff float64 // max |difference| against the file as this package runs it
	Runtime string  // ONNX Runtime and its version, if it was found, else ""
	// MaxDiffRuntime is max |difference| against the file as ONNX Runtime runs it; 0 without.
	MaxDiffRuntime float64

	// Rounding says why the computations differ by more than float32 does, if they do: what one of them
	// rounds to 8 bits and another does not.
	Rounding string

	Own bool // the expected results are this package's: only ONNX Runtime's can differ

	Doc string // of a graph that was written: what it computes and what it leaves out
}

// String returns the comparison in one line.
func (p *Parity) String() string {
	if p.Own {
		if p.Runtime == "" {
			return "not compared, as ONNX Runtime for Node.js was not found"
		}
		return fmt.Sprintf("max |difference| %.3g over %d values to %s, on %s", p.MaxDiffRuntime, p.Values, p.Runtime, p.Input)
	}
	s := fmt.Sprintf("max |difference| %.3g over %d values, on %s", p.MaxDiff, p.Values, p.Input)
	if p.Runtime != "" {
		s += fmt.Sprintf("; against %s %.3g", p.Runtime, p.MaxDiffRuntime)
	}
	if p.Rounding != "" {
		s += " (" + p.Rounding + ")"
	}
	return s
}

// MaxDifference returns the largest |a-b|, and the largest |a-b| relative to
// max(1,|b|). Slices of different lengths, or a NaN in only one, differ by +Inf.
func MaxDifference(a, b []float32) (diff, relative float64) {
	if len(a) != len(b) {
		return math.Inf(1), math.Inf(1)
	}
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		if a[i] == b[i] || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		d := math.Abs(x - y)
		if math.IsNaN(d) {
			return math.Inf(1), math.Inf(1)
		}
		diff, relative = math.Max(diff, d), math.Max(relative, d/math.Max(1, math.Abs(y)))
	}
	return diff, relative
}

// Random returns random inputs of the model, from a seed: floats from N(0,1), and
// token ids below vocabulary, or 0 and 1 if vocabulary is 0. A dimension that may
// vary has the size in sizes, by name or else by index, or 3.
func (m *Model) Random(seed uint64, vocabulary int, sizes map[string]int) map[string]Value {
	r := newRandom(seed)
	in := make(map[string]Value, len(m.inputs))
	for _, info := range m.inputs {
		dims := make([]int, len(info.Dims))
		for i, d := range info.Dims {
			dims[i] = d.Size
			if d.Size < 0 {
				n, ok := sizes[d.Name]
				if !ok {
					n = 3
				}
				dims[i] = n
			}
		}
		in[info.Name] = random(r, info.kind, dims, vocabulary)
	}
	return in
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func random(r *rand.Rand, k kind, dims []int, vocabulary int) Value {
	switch {
	case k == floats:
		return RandomFloats(r, dims...)
	case vocabulary < 1 || k == bools:
		vocabulary = 2
	}
	return RandomInts(r, vocabulary, dims...)
}

// RandomFloats returns a Value of numbers from N(0,1).
func RandomFloats(r *rand.Rand, dims ...int) Value {
	v := Floats(make([]float32, product(dims)), dims...)
	for i := range v.Data {
		v.Data[i] = float32(r.NormFloat64())
	}
	return v
}

// RandomInts returns a Value of integers from 0 to below-1. It panics if below is
// not positive.
func RandomInts(r *rand.Rand, below int, dims ...int) Value {
	v := Ints(make([]int64, product(dims)), dims...)
	for i := range v.Ints {
		v.Ints[i] = r.Int64N(int64(below))
	}
	return v
}

// Compare runs the graph on inputs and, if it is installed, ONNX Runtime on the
// file, and compares the outputs with want, by name. A difference above
// [Tolerance], or [DynamicTolerance] with [DynamicLSTM], is an error that names the output; other errors are those of
// [Model.Run] and [Runtime.Run]; a cancelled ctx returns its error.
//
// ONNX Runtime does not round what is multiplied with weights in 8 or 16 bits, and this package does. Where
// the file has such weights it is compared with this package's products in float32 with the
// same weights.
func (m *Model) Compare(ctx context.Context, in map[string]Value, want map[string][]float32) (*Parity, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	got, err := m.Run(in)
	if err != nil {
		return nil, err
	}
	p, tolerance := &Parity{Input: described(m, in)}, Tolerance
	if slices.Contains(m.Operators(), DynamicLSTM) {
		tolerance = DynamicTolerance
		p.Rounding = "the file's LSTM rounds inputs and states to 8 bits for all rows together, and the model by row"
	}
	if p.MaxDiff, p.Values, err = against(got, want, tolerance); err != nil {
		return nil, m.badf("the graph computes something else: %v", err)
	}
	rt := FindRuntime()
	if rt == nil {
		return p, nil
	}
	file, err := m.file()
	if err != nil {
		return nil, err
	}
	if got, err = rt.Run(ctx, file, m, in); err != nil {
		return nil, err
	}
	p.Runtime = rt.Version
	if rest := m.resting(); rest || p.Rounding != "" {
		if want, err = m.exact(file, in); err != nil {
			return nil, err
		}
		if p.Rounding != "" {
			p.Rounding += "; "
		}
		if p.Rounding += "ONNX Runtime is compared with this package's run of the file"; rest {
			p.Rounding += " with float32 products"
		}
	}
	if p.MaxDiffRuntime, _, err = against(got, want, tolerance); err != nil {
		return nil, m.badf("%s computes something else: %v", rt.Version, err)
	}
	return p, nil
}

// exact returns the outputs of a file with float32 products.
func (m *Model) exact(file []byte, in map[string]Value) (map[string][]float32, error) {
	other, err := parse(m.path, file, m.dev)
	if err != nil {
		return nil, err
	}
	for _, s := range other.weights.listed {
		if err := other.setRest(s, tensor.Float32); err != nil {
			return nil, err
		}
	}
	got, err := other.Run(in)
	out := make(map[string][]float32, len(got))
	for name, v := range got {
		out[name] = v.Data
	}
	return out, err
}

// against compares outputs with the expected ones by name.
func against(got map[string]Value, want map[string][]float32, tolerance float64) (diff float64, n int, err error) {
	for name, w := range want {
		d, relative := MaxDifference(got[name].Data, w)
		if relative > tolerance {
			return d, n, fmt.Errorf("%s differs by up to %.3g", name, d)
		}
		diff, n = math.Max(diff, d), n+len(w)
	}
	return diff, n, nil
}

func described(m *Model, in map[string]Value) string {
	v := in[m.inputs[0].Name]
	info := m.inputs[0]
	info.Dims = nil
	for _, d := range v.Dims {
		info.Dims = append(info.Dims, Dim{Size: d})
	}
	return info.String()
}
