package nn

import (
	"cmp"
	"fmt"
	"math/bits"
	"reflect"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

// OptionError is the error of an option that the cell does not have, that is out of
// range, or that would have no effect.
type OptionError struct {
	Option  string // the field of [RNNOptions]
	Problem string // such as "needs the cell LSTM"; it names no other option
}

// Error returns the option and the problem.
func (e *OptionError) Error() string { return e.Option + " " + e.Problem }

func wrong(option, format string, args ...any) *OptionError {
	return &OptionError{option, fmt.Sprintf(format, args...)}
}

// needed returns the cells that have an option, as errors list them: "the cell LSTM or sLSTM".
func needed(option cell.With) string {
	if (cell.WithRecurrentDropout | cell.WithWeightDrop).Has(option) { // of a custom cell too
		return "a cell with a recurrent matrix"
	}
	var list []string
	for _, kind := range cell.Having(option) {
		text := kind.Spec().Title
		for _, v := range cell.Table {
			if v.By != 0 && v.Base == kind && !v.Options.Has(option) {
				text += " without " + v.As
			}
		}
		list = append(list, text)
	}
	return "the cell " + strings.Join(list, " or ")
}

func (o *RNNOptions) field(name string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

// value returns the field of an option of cells.
func (o *RNNOptions) value(option cell.With) reflect.Value {
	return o.field(cell.OptionNames[bits.TrailingZeros32(uint32(option))])
}

// variant returns the cell that the options make of a kind of cell, and sets the option
// if kind itself is a variant.
func (o *RNNOptions) variant(kind cell.Kind) cell.Kind {
	if by := kind.Spec().By; by != 0 {
		o.value(by).SetBool(true)
		return kind
	}
	if v, ok := cell.Find(func(s *cell.Spec) bool { return s.By != 0 && s.Base == kind && o.value(s.By).Bool() }); ok {
		return v
	}
	return kind
}

// Cell returns the cell that the options make of a kind of cell, such as
// [cell.CoupledLSTM] of an LSTM with Coupled, and an [*OptionError] for the first option
// that is invalid for it with that number of hidden units.
func (o *RNNOptions) Cell(kind cell.Kind, hidden int) (cell.Kind, error) {
	c := *o
	c.Layers = cmp.Or(c.Layers, 1)
	kind = c.variant(kind)
	if e := c.check(kind, hidden); e != nil {
		return kind, e
	}
	return kind, nil
}

// check returns an error for the first invalid option for a cell with hidden units.
func (o *RNNOptions) check(kind cell.Kind, hidden int) *OptionError {
	if e := o.checkCell(kind); e != nil {
		return e
	}
	switch {
	case o.Dropout > 0 && o.Layers == 1:
		return wrong("Dropout", "acts between layers, and there is one layer; drop out its output instead")
	case o.Variational && o.Dropout == 0:
		return wrong("Variational", "changes the dropout between layers, and that is 0")
	case o.Residual && o.Layers == 1:
		return wrong("Residual", "acts on the layers after the first, and there is one layer")
	}
	for _, name := range []string{"Dropout", "InputDropout", "OutputDropout", "RecurrentDropout", "WeightDrop", "Zoneout", "ZoneoutCell"} {
		if p := o.field(name).Float(); !(p >= 0 && p < 1) {
			return wrong(name, "must be a probability in [0,1), got %v", float32(p))
		}
	}
	switch {
	case !(o.GateClip >= 0):
		return wrong("GateClip", "must not be negative, got %v", o.GateClip)
	case !(o.CellClip >= 0):
		return wrong("CellClip", "must not be negative, got %v", o.CellClip)
	case o.Proj < 0 || o.Proj >= hidden:
		return wrong("Proj", "must be below the %d hidden units, got %d", hidden, o.Proj)
	}
	return nil
}

// checkCell returns an error for the first option that this kind of cell does not have,
// or not together with another option.
func (o *RNNOptions) checkCell(kind cell.Kind) *OptionError {
	for i, name := range cell.OptionNames {
		option := cell.With(1) << i
		initial := option == cell.WithForgetBias || option == cell.WithChrono
		switch {
		case o.field(name).IsZero():
		case !kind.Has(option):
			return wrong(name, "needs %s", needed(option))
		case initial && o.NoBias:
			return wrong(name, "needs biases")
		case option == cell.WithReLU && o.Activation != 0:
			return wrong(name, "needs that no other activation is set")
		case option == cell.WithChrono && (o.Chrono <= 2 || o.ForgetBias != 0):
			return wrong(name, "needs at least 3 steps, and no ForgetBias")
		}
	}
	return nil
}

func check(ok bool, format string, args ...any) { tensor.Check(ok, "nn: RNN", format, args...) }
