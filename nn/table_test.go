package nn_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// Every row of the table is a stack, has the options that it lists and no others, and
// is in the table of the laws.
func TestEveryCellOfTheTable(t *testing.T) {
	inLaws := map[cell.Kind]bool{}
	for _, row := range table {
		inLaws[row.new(width, hidden, &row.opt).Cell()] = true
	}
	options := map[cell.With]nn.RNNOptions{}
	for _, name := range cell.OptionNames {
		var o nn.RNNOptions
		switch f := reflect.ValueOf(&o).Elem().FieldByName(name); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int:
			f.SetInt(3)
		case reflect.Float32:
			f.SetFloat(0.1)
		default:
			f.Set(reflect.ValueOf(cell.Softsign))
		}
		options[cell.OptionNamed(name)] = o
	}
	for kind := range cell.Custom {
		spec := kind.Spec()
		if !inLaws[kind] {
			t.Errorf("%s is missing in the table of the laws", spec.Name)
		}
		m := nn.New(kind, 3, 4, nil)
		made := m.Options()
		if again := nn.New(kind, 3, 4, &made); m.Cell() != kind || again.Cell() != kind {
			t.Errorf("%s: got cells %d and %d", spec.Name, m.Cell(), again.Cell())
		}
		if w := m.Param("weight_ih", 0, 0); w.Dim(0) != 4*len(spec.Gates) || (m.Param("weight_hh", 0, 0) == nil) != spec.Free || m.CellSize() != 4*(spec.States-1) {
			t.Errorf("%s: weight_ih %v, c of width %d", spec.Name, w.Dims(), m.CellSize())
		}
		for option, o := range options {
			refused := tensor.Catch(func() { nn.New(kind, 3, 4, &o) })
			if spec.By == cell.WithReLU && option == cell.WithActivation { // is one already
				continue
			}
			if kind.Has(option) != (refused == nil) {
				t.Errorf("%s with %+v: %v", spec.Name, o, refused)
			}
		}
	}
}

// Residual inside a stack is that between stacks.
func TestResidual(t *testing.T) {
	whole := nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 3, Residual: true, Bidirectional: true, Dropout: 0.3})
	o := &nn.RNNOptions{Bidirectional: true}
	parts := nn.NewStack([]*nn.RNN{nn.NewLSTM(width, hidden, o), nn.NewLSTM(2*hidden, hidden, o), nn.NewLSTM(2*hidden, hidden, o)},
		&nn.StackOptions{Residual: true, Dropout: 0.3})
	slab, other := tensor.Pack(tensor.CPU(), whole, 1), tensor.Pack(tensor.CPU(), parts, 2)
	for i, p := range other.Params {
		p.Write(slab.Params[i].Read())
	}
	x := normal(1, 3*5*width)
	pass := func(forward func(x *tensor.Tensor) *tensor.Tensor) []float32 {
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		tape.Seed(1, 2)
		return slices.Clone(forward(tape.Sequences(x, []int32{5, 2, 0}, 3, 5, width)).Data())
	}
	got := pass(func(x *tensor.Tensor) *tensor.Tensor { y, _ := whole.Forward(x, nil); return y })
	want := pass(func(x *tensor.Tensor) *tensor.Tensor { y, _ := parts.Forward(x, nil); return y })
	sameBits(t, "output", got, want)
	tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
		y, _ := whole.Forward(tape.Sequences(x, []int32{5, 2, 0}, 3, 5, width), nil)
		return tensor.MeanAll(tensor.Square(y))
	})
}
