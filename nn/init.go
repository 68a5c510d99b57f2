package nn

import (
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/tensor"
)

// Uniform draws elements from U(-bound, bound).
func Uniform(bound float64) tensor.Init {
	return func(r *rand.Rand, w []float32, _ []int) {
		for i := range w {
			w[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
}

// Normal draws elements from N(0, std²).
func Normal(std float64) tensor.Init {
	return func(r *rand.Rand, w []float32, _ []int) {
		for i := range w {
			w[i] = float32(r.NormFloat64() * std)
		}
	}
}

// Constant sets every element to v.
func Constant(v float32) tensor.Init {
	return func(_ *rand.Rand, w []float32, _ []int) {
		for i := range w {
			w[i] = v
		}
	}
}

// Xavier draws the elements of a matrix [out,in] from U(-b, b) with
// b = sqrt(6/(in+out)) (Glorot and Bengio 2010; torch.nn.init.xavier_uniform_).
func Xavier(r *rand.Rand, w []float32, dims []int) {
	Uniform(math.Sqrt(6/float64(dims[0]+dims[len(dims)-1])))(r, w, dims)
}

// Orthogonal draws a matrix with orthonormal rows or columns, whichever are fewer,
// uniformly (Saxe et al. 2014; torch.nn.init.orthogonal_).
func Orthogonal(r *rand.Rand, w []float32, dims []int) {
	rows, cols := dims[0], len(w)/dims[0]
	n, length := min(rows, cols), max(rows, cols)
	basis := make([][]float64, n)
	for i := range basis {
		v := make([]float64, length)
		for j := range v {
			v[j] = r.NormFloat64()
		}
		for range 2 { // Gram and Schmidt, twice for accuracy
			for _, u := range basis[:i] {
				dot := 0.0
				for j := range v {
					dot += u[j] * v[j]
				}
				for j := range v {
					v[j] -= dot * u[j]
				}
			}
		}
		norm := 0.0
		for _, x := range v {
			norm += x * x
		}
		norm = math.Sqrt(norm)
		for j := range v {
			v[j] /= norm
		}
		basis[i] = v
	}
	for i := range w {
		row, col := i/cols, i%cols
		if rows > cols {
			row, col = col, row
		}
		w[i] = float32(basis[row][col])
	}
}

// PerGate applies init to the block of rows of each gate independently: an orthogonal
// [4H,H] is not four orthogonal [H,H].
func PerGate(gates int, init tensor.Init) tensor.Init {
	return func(r *rand.Rand, w []float32, dims []int) {
		block := append([]int{dims[0] / gates}, dims[1:]...)
		n := len(w) / gates
		for g := range gates {
			init(r, w[g*n:(g+1)*n], block)
		}
	}
}

// zeroRow applies init and sets one row to zero.
func zeroRow(init tensor.Init, row int) tensor.Init {
	return func(r *rand.Rand, w []float32, dims []int) {
		init(r, w, dims)
		n := len(w) / dims[0]
		clear(w[row*n : (row+1)*n])
	}
}
