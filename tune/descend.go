package tune

import (
	"math"
	"slices"
)

// descend returns a point in a box where a smooth function is less than at start, near a minimum if the steps suffice. f
// returns the value at x and puts the slopes into grad. It is the method of Broyden, Fletcher, Goldfarb and Shanno,
// with each step cut off at the box: what is at a side and would leave it rests.
func descend(f func(x, grad []float64) float64, start []float64, low, high float64, steps int) []float64 {
	n := len(start)
	x, grad := slices.Clone(start), make([]float64, n)
	next, nextGrad := make([]float64, n), make([]float64, n)
	value := f(x, grad)
	inverse := make([]float64, n*n) // of the second derivatives
	reset := func() {
		clear(inverse)
		for i := range n {
			inverse[i*n+i] = 1
		}
	}
	reset()
	fresh := true // the inverse knows nothing yet
	rests, rested := make([]bool, n), make([]bool, n)
	move, change, product := make([]float64, n), make([]float64, n), make([]float64, n)
	for range steps {
		for i, g := range grad {
			rests[i] = x[i] <= low && g > 0 || x[i] >= high && g < 0
		}
		if !slices.Equal(rests, rested) {
			copy(rested, rests)
			reset()
			fresh = true
		}
		down, size := 0.0, 0.0
		for i := range move {
			move[i] = 0
			for j, g := range grad {
				if !rests[i] && !rests[j] {
					move[i] -= inverse[i*n+j] * g
				}
			}
			down += move[i] * grad[i]
			size = max(size, math.Abs(move[i]))
		}
		if !(down < -1e-10) {
			break
		}
		along := 1.0
		if fresh {
			along = min(1, 0.1*min(high-low, 10)/size) // the length of the slope says nothing of how far the minimum is
		}
		reached, ok := 0.0, false
		for range 20 {
			for i := range next {
				next[i] = min(max(x[i]+along*move[i], low), high)
			}
			if reached = f(next, nextGrad); reached <= value+1e-4*along*down {
				ok = true
				break
			}
			along /= 3
		}
		if !ok {
			if fresh {
				break
			}
			reset()
			fresh = true
			continue
		}
		curvature, length := 0.0, 0.0
		for i := range x {
			move[i], change[i] = next[i]-x[i], nextGrad[i]-grad[i]
			curvature += move[i] * change[i]
			length += change[i] * change[i]
		}
		gain := value - reached
		x, next, grad, nextGrad, value = next, x, nextGrad, grad, reached
		if curvature > 1e-12 {
			if fresh {
				for i := range n {
					inverse[i*n+i] = curvature / length
				}
				fresh = false
			}
			twice := 0.0
			for i := range product {
				product[i] = 0
				for j, c := range change {
					product[i] += inverse[i*n+j] * c
				}
				twice += change[i] * product[i]
			}
			for i := range n {
				for j := range n {
					inverse[i*n+j] += (1+twice/curvature)*move[i]*move[j]/curvature - (move[i]*product[j]+product[i]*move[j])/curvature
				}
			}
		}
		if gain < 1e-6 {
			break
		}
	}
	return x
}
