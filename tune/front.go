package tune

import (
	"cmp"
	"math"
	"slices"
)

// Front returns the indices, in order, of the losses that no others dominate: those of which none
// can be made less without another one becoming more. Losses with NaN are never among them.
func Front(losses [][]float64) []int {
	var list []int
	for i, a := range losses {
		if !isFailed(a) && !slices.ContainsFunc(losses, func(b []float64) bool { return !isFailed(b) && dominates(b, a) }) {
			list = append(list, i)
		}
	}
	return list
}

// Hypervolume returns the volume of what is dominated by at least one of the losses and dominates
// the reference, any number of objectives long. More is better; its time grows as the number of
// losses to the power of the objectives.
func Hypervolume(losses [][]float64, reference []float64) float64 {
	inside := slices.DeleteFunc(slices.Clone(losses), func(a []float64) bool {
		for i, x := range a {
			if !(x < reference[i]) {
				return true
			}
		}
		return false
	})
	return slabs(inside, reference)
}

// slabs cuts the volume along the last objective, at each of the losses.
func slabs(inside [][]float64, reference []float64) (sum float64) {
	last := len(reference) - 1
	slices.SortFunc(inside, func(a, b []float64) int { return cmp.Compare(a[last], b[last]) })
	if last == 0 && len(inside) > 0 {
		return reference[0] - inside[0][0]
	}
	for i, a := range inside {
		end := reference[last]
		if i+1 < len(inside) {
			end = inside[i+1][last]
		}
		if end > a[last] {
			sum += (end - a[last]) * slabs(slices.Clone(inside[:i+1]), reference[:last])
		}
	}
	return sum
}

// bestFirst returns the indices of losses in the order of NSGA-II (Deb et al. 2002): those that
// keep the constraints before those that break them, the latter by excess; among the former those
// of an earlier front first; within a front the lonelier ones first. Failed ones come last.
func bestFirst(losses [][]float64, excess []float64) []int {
	var kept, broken, failed []int
	for i, a := range losses {
		switch {
		case isFailed(a):
			failed = append(failed, i)
		case excess[i] > 0:
			broken = append(broken, i)
		default:
			kept = append(kept, i)
		}
	}
	slices.SortStableFunc(broken, func(i, j int) int { return cmp.Compare(excess[i], excess[j]) })
	var order []int
	for len(kept) > 0 {
		rest := make([][]float64, len(kept))
		for i, at := range kept {
			rest[i] = losses[at]
		}
		front := Front(rest)
		lonely := crowding(rest, front)
		ranked := slices.Clone(front)
		slices.SortStableFunc(ranked, func(i, j int) int {
			return cmp.Compare(lonely[slices.Index(front, j)], lonely[slices.Index(front, i)])
		})
		for _, i := range ranked {
			order = append(order, kept[i])
		}
		kept = slices.DeleteFunc(kept, func(at int) bool { return slices.Contains(order[len(order)-len(ranked):], at) })
	}
	return append(append(order, broken...), failed...)
}

// crowding returns the crowding distance of each member of a front: the sum over the objectives of
// the distance between its neighbours, in shares of the front's range. That of the ends is infinite.
func crowding(losses [][]float64, front []int) []float64 {
	sum := make([]float64, len(front))
	for o := range losses[front[0]] {
		order := make([]int, len(front))
		for i := range order {
			order[i] = i
		}
		at := func(i int) float64 { return losses[front[order[i]]][o] }
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(losses[front[i]][o], losses[front[j]][o]) })
		last := len(order) - 1
		width := at(last) - at(0)
		for i, member := range order {
			switch {
			case i == 0 || i == last:
				sum[member] = math.Inf(1)
			case width > 0:
				sum[member] += (at(i+1) - at(i-1)) / width
			}
		}
	}
	return sum
}
