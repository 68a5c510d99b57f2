package nn_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// stacker accepts whole stacks and runs them layer by layer in separate memory.
type stacker struct {
	device.Backend
	refuses          bool
	asked, runs, ran int
}

// layers is the scans of s with everything that lies between them, cut from s.Work if that is there, and how long it is.
func (b *stacker) layers(s *device.StackSpec) (scans []device.ScanSpec, n int) {
	cut := func(size int) device.Buffer {
		n += size
		if s.Work.Zero() {
			return device.Buffer{}
		}
		return s.Work.Slice(n-size, n)
	}
	var y, dy device.Buffer
	for k := range s.Scans {
		p := *s.Scans[k]
		first, last := k < s.Dirs, k >= len(s.Scans)-s.Dirs
		p.Work = cut(b.ScanWork(&p))
		if !first {
			p.X = y
			if p.Keep {
				p.DX, p.DXAcc = dy, k%s.Dirs < s.Dirs-1
			}
		}
		scans = append(scans, p)
		if k%s.Dirs == s.Dirs-1 && !last {
			y, dy = cut(p.T*p.B*p.YLd), cut(p.T*p.B*p.YLd)
			for i := k - s.Dirs + 1; i <= k; i++ {
				if scans[i].Y = y; p.Keep {
					scans[i].DY = dy
				}
			}
		}
	}
	return scans, n
}

func (b *stacker) StackWork(s *device.StackSpec) (int, bool) {
	b.asked++
	_, n := b.layers(s)
	return n, !b.refuses
}

func (b *stacker) ScanStack(s *device.StackSpec) {
	b.runs++
	scans, _ := b.layers(s)
	for k := range scans {
		b.Scan(&scans[k])
	}
}

func (b *stacker) ScanStackGrad(s *device.StackSpec) {
	b.ran++
	scans, _ := b.layers(s)
	for k := len(scans) - 1; k >= 0; k-- {
		b.ScanGrad(&scans[k])
	}
}

// A device that takes a whole stack at once, or is asked and declines, changes no
// bit of outputs, states and gradients, whatever of them a loss reads.
func TestWholeStackOnTheDevice(t *testing.T) {
	const B, T, in, H = 4, 6, 5, 7
	for _, c := range []struct {
		name  string
		build func(in, hidden int, o *nn.RNNOptions) *nn.RNN
		o     nn.RNNOptions
		whole bool // in training
	}{
		{"lstm", nn.NewLSTM, nn.RNNOptions{Layers: 3}, true},
		{"gru in both directions", nn.NewGRU, nn.RNNOptions{Layers: 2, Bidirectional: true}, true},
		{"one layer in both directions", nn.NewRNN, nn.RNNOptions{Bidirectional: true}, true},
		{"a trained state", nn.NewLSTM, nn.RNNOptions{Layers: 2, LearnState: true, TimeMajor: true}, true},
		{"options", nn.NewLSTM, nn.RNNOptions{Layers: 2, Bidirectional: true, Proj: 3, Peephole: true, RecurrentDropout: 0.3, WeightDrop: 0.3, Zoneout: 0.2, ZoneoutCell: 0.2, InputDropout: 0.2, OutputDropout: 0.2}, true},
		{"dropout between layers", nn.NewLSTM, nn.RNNOptions{Layers: 2, Dropout: 0.4}, false},
	} {
		for _, reads := range []string{"outputs", "a state of the first layer", "both"} {
			type result struct{ numbers [][]float32 }
			run := func(dev *tensor.Device, mode tensor.Mode) result {
				m := c.build(in, H, &c.o)
				slab := tensor.Pack(dev, m, 1)
				r, tape := rand.New(rand.NewPCG(1, 2)), tensor.NewTape(dev, mode)
				tape.Seed(3, 4)
				v := make([]float32, B*T*in)
				for i := range v {
					v[i] = float32(r.NormFloat64())
				}
				x := tape.Sequences(v, []int32{3, T, 0, 5}, B, T, in)
				if c.o.TimeMajor {
					x = tape.Input(v, T, B, in)
				}
				x = x.RequireGrad()
				y, final := m.Forward(x, nil)
				out := result{[][]float32{y.Data(), final.H.Data()}}
				if final.C != nil {
					out.numbers = append(out.numbers, final.C.Data())
				}
				if mode == tensor.Train {
					first := tensor.SumAll(tensor.Square(tensor.Slice(final.H, 0, 0, 1)))
					loss := tensor.SumAll(tensor.Square(y))
					switch reads {
					case "both":
						loss = tensor.Add(loss, first)
					case "a state of the first layer":
						loss = first
					}
					loss.Backward()
					for _, p := range slab.Params {
						out.numbers = append(out.numbers, p.Grad())
					}
					out.numbers = append(out.numbers, x.Grad())
				}
				return out
			}
			for mode, name := range []string{"infer", "train"} {
				mode := tensor.Mode(mode)
				want := run(tensor.CPU(), mode)
				for _, refuses := range []bool{false, true} {
					b := &stacker{Backend: tensor.CPU().Backend(), refuses: refuses}
					got := run(tensor.NewDevice(b), mode)
					title := fmt.Sprintf("%s, %s, loss of %s, refused %v", c.name, name, reads, refuses)
					for k, v := range want.numbers {
						for i, w := range v {
							if math.Float32bits(got.numbers[k][i]) != math.Float32bits(w) {
								t.Fatalf("%s: element %d of result %d is %v, layer by layer %v", title, i, k, got.numbers[k][i], w)
							}
						}
					}
					offered := mode == tensor.Infer || c.whole
					if (b.asked == 1) != offered || (b.runs == 1) != (offered && !refuses) || (b.ran == 1) != (offered && !refuses && mode == tensor.Train) {
						t.Errorf("%s: asked %d times, ran forward %d and backward %d times", title, b.asked, b.runs, b.ran)
					}
				}
			}
		}
	}
}
