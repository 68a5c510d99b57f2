package cell_test

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/cell"
)

// Rows that contradict themselves would be found late: by a wrong file, or a gate
// that initialisation takes for another.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for kind := range cell.Custom {
		s := kind.Spec()
		check := func(ok bool, format string, args ...any) {
			t.Helper()
			if !ok {
				t.Errorf(s.Name+": "+format, args...)
			}
		}
		check(s.Name != "" && s.Title != "" && !names[s.Name], "the name is missing or not unique")
		names[s.Name] = true
		check(len(s.Gates) > 0 && s.States > 0, "has %d gates and %d states", len(s.Gates), s.States)
		check(s.Keep == "" || s.Gate(s.Keep) >= 0, "has no gate %q", s.Keep)
		check(s.Take == "" || s.Gate(s.Take) >= 0, "has no gate %q", s.Take)
		check(!s.Shares || s.Keep != "" && s.Take != "", "shares what")
		check(s.Positive < s.States, "has no vector %d in c", s.Positive)
		check(!s.Side || len(s.Gates) > 1, "keeps its only gate apart")
		if kind.Has(cell.WithLayerNorm) {
			check(s.Norms[0]+s.Norms[1] == len(s.Gates), "norms of %v gates of %d", s.Norms, len(s.Gates))
		}
		check(kind.Has(cell.WithRecurrentDropout|cell.WithWeightDrop) == !s.Free, "options of R, or no R")
		check(!kind.Has(cell.WithActivation) || s.Candidate() != cell.Own, "no activation to choose")
		check(!kind.Has(cell.WithChrono) || s.Keep+s.Take != "", "no gate for Chrono")
		check(!kind.Has(cell.WithForgetBias) || s.Keep != "", "no gate to keep")
		check(!kind.Has(cell.WithCellClip) || s.States == 2, "no c")

		if s.By != 0 {
			base := s.Base.Spec()
			check(base.Options.Has(s.Options), "has options that %s has not", base.Name)
			check(s.Setting == "" && s.As != "" && base.By == 0 && base.Options.Has(s.By) && kind.Has(s.By), "is made of %s, which has not the option", base.Name)
		} else {
			got, ok := cell.Named(s.Setting)
			check(ok && got == kind && slices.Contains(cell.Settings(), s.Setting), "cannot be chosen by %q", s.Setting)
		}

		check((s.ONNX == "") == (s.ONNXGates == nil) && (s.ONNX != "" || s.ONNXFlag == ""), "half an operator of ONNX")
		if s.ONNX != "" {
			var gates []int
			for _, g := range s.ONNXGates {
				if g >= 0 {
					gates = append(gates, g)
				}
			}
			slices.Sort(gates)
			for i := range s.Gates {
				check(len(gates) == len(s.Gates) && gates[i] == i, "ONNX's gates are %v", s.ONNXGates)
			}
		}
	}
	all := cell.With(0)
	for i, name := range cell.OptionNames {
		o := cell.OptionNamed(name)
		all |= o
		if o != 1<<i || len(cell.Having(o)) == 0 {
			t.Errorf("option %s is bit %b, of cells %v", name, o, cell.Having(o))
		}
	}
	for kind := range cell.NumKinds {
		if !all.Has(kind.Spec().Options) {
			t.Errorf("%s has an option without a name", kind.Spec().Name)
		}
	}
	if cell.OptionNamed("Dropout") != 0 {
		t.Error("Dropout is not an option of cells")
	}
	for a, name := range cell.Activations {
		if got, ok := cell.ActivationNamed(name); !ok || got != cell.Activation(a) || (name == "") != (got == cell.Own) {
			t.Errorf("activation %d is named %q", a, name)
		}
	}
	if _, ok := cell.ActivationNamed("swish"); ok {
		t.Error("there is no swish")
	}
}
