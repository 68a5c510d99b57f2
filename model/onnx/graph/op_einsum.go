package graph

import (
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/internal/simd"
)

// einsum is the equation of an Einsum: the labels of the operands' axes and of the
// result's. A letter is a label; ellipsis is replaced by labels below 0, the last axis
// of which is -1.
type einsum struct {
	terms [][]int
	out   []int
}

const ellipsis = 0 // before its number of axes is known

func prepareEinsum(_ *Model, n *node) any {
	left, right, given := strings.Cut(strings.ReplaceAll(n.stringAttr("equation", ""), " ", ""), "->")
	e := &einsum{}
	var counts [128]int
	for term := range strings.SplitSeq(left, ",") {
		e.terms = append(e.terms, n.labels(term))
		for _, l := range e.terms[len(e.terms)-1] {
			counts[l]++
		}
	}
	if len(e.terms) != len(n.in) {
		n.failf("equation %q has %d operands, and the node %d inputs", clip(left), len(e.terms), len(n.in))
	}
	if e.out = n.labels(right); !given {
		if counts[ellipsis] > 0 {
			e.out = append(e.out, ellipsis)
		}
		for l, count := range counts {
			if count == 1 && l != ellipsis {
				e.out = append(e.out, l)
			}
		}
	}
	for i, l := range e.out {
		if counts[l] == 0 && l != ellipsis || slices.Contains(e.out[:i], l) {
			n.failf("the result of equation %q->%q has a label that no operand has, or has it twice", clip(left), clip(right))
		}
	}
	return e
}

// labels reads one term of an equation.
func (n *node) labels(term string) (list []int) {
	for len(term) > 0 {
		c := int(term[0])
		switch letter := c | 0x20; {
		case strings.HasPrefix(term, "...") && !slices.Contains(list, ellipsis):
			list, term = append(list, ellipsis), term[2:]
		case letter >= 'a' && letter <= 'z':
			list = append(list, c)
		default:
			n.failf("attribute equation: %q is neither a letter nor one ellipsis", clip(term))
		}
		term = term[1:]
	}
	return list
}

// expand replaces an ellipsis by count labels.
func expand(labels []int, count int) []int {
	at := slices.Index(labels, ellipsis)
	if at < 0 {
		return labels
	}
	var axes []int
	for i := range count {
		axes = append(axes, i-count)
	}
	return slices.Concat(labels[:at], axes, labels[at+1:])
}

// operand is a value whose axes have labels.
type operand struct {
	v      *value
	labels []int
	stride []int
}

// runEinsum multiplies the operands from left to right. Labels that neither the result
// nor a later operand has are summed as soon as possible.
func runEinsum(r *run, n *node, in []*value) []*value {
	e := n.prepared.(*einsum)
	sizes, most := map[int]int{}, 0
	list := make([]operand, len(in))
	for i, v := range in {
		if v == nil || v.kind != floats {
			n.failf("its operands must be floats")
		}
		count := v.rank() - len(e.terms[i])
		if slices.Contains(e.terms[i], ellipsis) {
			count++
			most = max(most, count)
		} else if count != 0 {
			n.failf("operand %d of shape %s does not fit its %d labels", i, shape(v.dims), len(e.terms[i]))
		}
		if count < 0 {
			n.failf("operand %d of shape %s does not fit its labels", i, shape(v.dims))
		}
		list[i] = operand{v, expand(e.terms[i], count), strides(v.dims)}
		for j, l := range list[i].labels {
			d := v.dims[j]
			if d == 1 {
				list[i].stride[j] = 0
			}
			if old, ok := sizes[l]; !ok || old == 1 {
				sizes[l] = d
			} else if d != old && d != 1 {
				n.failf("operand %d of shape %s: an axis has %d elements where another operand has %d", i, shape(v.dims), d, old)
			}
		}
	}
	out := expand(e.out, most)
	acc := list[0]
	for i := 1; i < len(list); i++ {
		later := slices.Clone(out)
		for _, o := range list[i+1:] {
			later = append(later, o.labels...)
		}
		acc = r.contract(n, acc, list[i], later, sizes)
	}
	acc = r.sumLabels(n, acc, out, sizes)
	if slices.Equal(acc.labels, out) && acc.v.len() == product(sizesOf(out, sizes)) {
		return one(acc.v.reshaped(sizesOf(out, sizes)))
	}
	return one(acc.view(r, n, out, sizes))
}

func sizesOf(labels []int, sizes map[int]int) []int {
	dims := make([]int, len(labels))
	for i, l := range labels {
		dims[i] = sizes[l]
	}
	return dims
}

// view makes the value with its axes in an order of labels; an axis that is not there
// is repeated, and one that is there twice is the diagonal.
func (o operand) view(r *run, n *node, labels []int, sizes map[int]int) *value {
	stride := make([]int, len(labels))
	for i, l := range labels {
		for j, own := range o.labels {
			if own == l {
				stride[i] += o.stride[j]
			}
		}
	}
	return r.view(n, o.v, sizesOf(labels, sizes), stride, 0)
}

// dense is an operand of a value with these labels.
func dense(v *value, labels []int, sizes map[int]int) operand {
	dims := sizesOf(labels, sizes)
	return operand{v.reshaped(dims), labels, strides(dims)}
}

// sumLabels sums over the labels that are not kept.
func (r *run) sumLabels(n *node, o operand, keep []int, sizes map[int]int) operand {
	var kept, summed []int
	for _, l := range o.labels {
		switch {
		case slices.Contains(kept, l) || slices.Contains(summed, l):
		case slices.Contains(keep, l):
			kept = append(kept, l)
		default:
			summed = append(summed, l)
		}
	}
	if len(summed) == 0 {
		return o
	}
	v := o.view(r, n, slices.Concat(kept, summed), sizes)
	out := r.newFloats(n, sizesOf(kept, sizes))
	each := product(sizesOf(summed, sizes))
	r.do(func() {
		for i := range out.host {
			sum := 0.0
			for _, x := range v.host[i*each : (i+1)*each] {
				sum += float64(x)
			}
			out.host[i] = simd.Narrow(sum)
		}
	})
	return dense(out, kept, sizes)
}

// contract multiplies two operands as stacks of matrices.
func (r *run) contract(n *node, a, b operand, later []int, sizes map[int]int) operand {
	a = r.sumLabels(n, a, slices.Concat(b.labels, later), sizes)
	b = r.sumLabels(n, b, slices.Concat(a.labels, later), sizes)
	var batch, inner, rows, cols []int
	for _, l := range a.labels {
		switch both, kept := slices.Contains(b.labels, l), slices.Contains(later, l); {
		case slices.Contains(slices.Concat(batch, inner, rows), l):
		case both && kept:
			batch = append(batch, l)
		case both:
			inner = append(inner, l)
		default:
			rows = append(rows, l)
		}
	}
	for _, l := range b.labels {
		if !slices.Contains(a.labels, l) && !slices.Contains(cols, l) {
			cols = append(cols, l)
		}
	}
	B, K := product(sizesOf(batch, sizes)), product(sizesOf(inner, sizes))
	M, N := product(sizesOf(rows, sizes)), product(sizesOf(cols, sizes))
	x := a.view(r, n, slices.Concat(batch, rows, inner), sizes).reshaped([]int{B, M, K})
	y := b.view(r, n, slices.Concat(batch, inner, cols), sizes).reshaped([]int{B, K, N})
	return dense(r.matMul(n, x, y), slices.Concat(batch, rows, cols), sizes)
}
