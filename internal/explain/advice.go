package explain

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/cell"
)

// Thresholds for vanished, exploded and saturated.
const (
	vanished  = 1e-3 // of the gradient left at the first step
	exploded  = 1e3
	saturated = 0.5 // share of a gate's values
	shut      = 0.9 // of an input gate's values
	oftenCut  = 0.2 // share of the training steps that are clipped
)

// advise returns what the numbers mean and what to change, a sentence each.
func advise(f *Flow) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	var live []*Layer
	var dead, faint []string
	for _, l := range f.Layers {
		switch {
		case l.Reach > 0:
			live = append(live, l)
		case l.Told < l.Steps:
			faint = append(faint, l.title())
		default:
			dead = append(dead, l.title())
		}
	}
	if len(faint) > 0 {
		say("The gradient in %s is below %s: nothing can be learnt from it.", strings.Join(faint, "; "), short(smallest))
	}
	switch {
	case len(live)+len(faint) == 0:
		say("No recurrent layer has a gradient: the output does not depend on them. In a forecasting model, calibration has scaled them to zero and only the linear path is used.")
	case len(dead) > 0:
		say("There is no gradient in %s: the loss does not depend on it.", strings.Join(dead, "; "))
	}
	for _, stack := range stacks(live) {
		adviseFlow(slices.MaxFunc(stack, func(a, b *Layer) int { return cmp.Compare(a.Left, b.Left) }), len(stack) > 1, say)
		adviseMemory(stack, say)
	}
	for _, l := range live {
		adviseGates(l, say)
		if l.CellClipped > 0.01 {
			say("%s: %s of the cell states are at the limit of %s, where no gradient passes: raise the cell clip.", l.title(), percent(l.CellClipped), short(l.CellClip))
		}
	}
	adviseClip(f, say)
	if len(all) == 0 {
		say("Nothing unusual: the gradient reaches the first step and no gate is saturated.")
	}
	return all
}

// title returns the layer's name in a sentence.
func (l *Layer) title() string {
	if l.Name == "" {
		return "the " + l.Cell
	}
	return l.Name
}

// stacks groups the layers by module: by the part of their names before the
// layer's number.
func stacks(layers []*Layer) [][]*Layer {
	var all [][]*Layer
	at := map[string]int{}
	for _, l := range layers {
		module, _, _ := strings.Cut(l.Name, "layer ")
		i, ok := at[module]
		if !ok {
			i = len(all)
			at[module], all = i, append(all, nil)
		}
		all[i] = append(all[i], l)
	}
	return all
}

// adviseFlow gives advice on a stack by the layer with the largest gradient at
// the first step.
func adviseFlow(l *Layer, ofSeveral bool, say func(string, ...any)) {
	name := l.title()
	if ofSeveral {
		name += ", which has the largest gradient at the first step"
	}
	switch gated := l.Memory != nil; {
	case l.Left >= exploded:
		say("%s: the gradient explodes, by a factor of %s per step, %s times over %d steps: clip its norm (1 is a good start), start from orthogonal recurrent matrices, or lower the learning rate.", name, short(l.Rate), short(l.Left), l.Steps)
	case l.Left < vanished && !gated:
		say("%s: the gradient shrinks by a factor of %s per step, and %d steps back less than a thousandth is left: dependences further back cannot be learnt. Use an LSTM or a GRU, whose cells keep the gradient.", name, short(l.Rate), l.Reach)
	case l.Left < vanished:
		say("%s: the gradient shrinks by a factor of %s per step; less than a thousandth is left %d steps back, of %d.", name, short(l.Rate), l.Reach, l.Steps)
	}
}

// adviseMemory compares the longest memory of a stack with the length of the
// sequences: inputs that are a few memories back are forgotten before they are
// needed.
func adviseMemory(stack []*Layer, say func(string, ...any)) {
	var best *Layer
	for _, l := range stack {
		if l.Memory != nil && (best == nil || l.Memory.Median > best.Memory.Median) {
			best = l
		}
	}
	if best == nil || best.Steps < 10 || best.Memory.Median*5 > float64(best.Steps) {
		return
	}
	m, name := best.Memory, best.title()
	if len(stack) > 1 {
		name += ", which has the longest memory"
	}
	say("%s: half of the units forget within %s steps, the longest holds %s, and sequences have %d.%s", name, short(m.Median), short(m.Most), best.Steps, remedy(best))
}

// remedy returns how to lengthen the memory, by the options that the cell has; "" if
// it has none for this. A logistic gate with bias b has a memory of 1+eᵇ steps.
func remedy(l *Layer) string {
	spec := l.kind.Spec()
	var ways []string
	if f := spec.Gate(spec.Keep); spec.Options.Has(cell.WithForgetBias) && spec.Gates[f].Act == cell.Sigmoid {
		var biases, memories []string
		for _, b := range []float64{0, 1, 3} {
			biases, memories = append(biases, short(b)), append(memories, short(1+math.Exp(b)))
		}
		ways = append(ways, fmt.Sprintf("raise the forget bias (%s makes the mean memory 1/(1-f) %s steps)", strings.Join(biases, " -> "), strings.Join(memories, " -> ")))
	}
	if spec.Options.Has(cell.WithChrono) {
		ways = append(ways, fmt.Sprintf("initialise with memories of all lengths (chrono %d)", l.Steps))
	}
	if ways == nil {
		return ""
	}
	return " If more of the past matters, " + strings.Join(ways, ", or ") + "."
}

func adviseGates(l *Layer, say func(string, ...any)) {
	name := l.title()
	for _, g := range l.Gates {
		switch {
		case g.Signed && g.Low+g.High > saturated:
			say("%s: %s of %s are beyond ±0.9, where tanh passes little gradient: scale the inputs, lower the learning rate, or add weight decay or layer normalisation.", name, percent(g.Low+g.High), g.Name)
		case g.Name == "i" && g.Low > shut:
			say("%s: the input gates are closed (%s of i below 0.1): hardly any input is stored. Fewer units may be enough.", name, percent(g.Low))
		case g.Name == "o" && g.Low > shut:
			say("%s: the output gates are closed (%s of o below 0.1): fewer units may be enough.", name, percent(g.Low))
		}
	}
}

func adviseClip(f *Flow, say func(string, ...any)) {
	switch {
	case f.Clipped != nil && *f.Clipped > oftenCut:
		say("%s of the training steps were clipped at a norm of %s: the steps are smaller than the learning rate implies. Raise the clip or lower the learning rate.", percent(*f.Clipped), short(f.Clip))
	case f.Clip > 0 && f.GradNorm > f.Clip:
		say("This batch's gradient has a norm of %s and would be clipped at %s.", short(f.GradNorm), short(f.Clip))
	case f.Clip == 0 && f.GradNorm > 100:
		say("The gradient's norm is %s and nothing limits it: clip it (1 is a good start).", short(f.GradNorm))
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// short formats a number with two or three digits.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a != 0 && (a < 1e-3 || a >= 1e5):
		return strconv.FormatFloat(v, 'g', 2, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}
