package dist_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

var _ train.World = (*dist.World)(nil)

// memory is a Transport between goroutines.
type memory struct {
	rank  int
	pipes [][]chan []byte // from, to
	done  chan struct{}
	fail  *sync.Once
	err   *error
}

func newMemory(size int) []dist.Transport {
	pipes := make([][]chan []byte, size)
	for from := range pipes {
		for range size {
			pipes[from] = append(pipes[from], make(chan []byte, 1))
		}
	}
	done, once, failure := make(chan struct{}), new(sync.Once), new(error)
	list := make([]dist.Transport, size)
	for r := range list {
		list[r] = &memory{r, pipes, done, once, failure}
	}
	return list
}

func (m *memory) Rank() int { return m.rank }
func (m *memory) Size() int { return len(m.pipes) }

func (m *memory) Exchange(send, recv [][]byte) error {
	for r, b := range send {
		if r != m.rank && len(b) > 0 {
			m.pipes[m.rank][r] <- slices.Clone(b)
		}
	}
	for r, b := range recv {
		if r == m.rank || len(b) == 0 {
			continue
		}
		select {
		case got := <-m.pipes[r][m.rank]:
			if len(got) != len(b) {
				return fmt.Errorf("%d bytes of rank %d, want %d", len(got), r, len(b))
			}
			copy(b, got)
		case <-m.done:
			return *m.err
		}
	}
	return nil
}

func (m *memory) Abort(err error) {
	m.fail.Do(func() {
		*m.err = fmt.Errorf("rank %d: %w", m.rank, err)
		close(m.done)
	})
}

func (m *memory) Close() error { return nil }

// onAll runs a function on all ranks at once.
func onAll(t testing.TB, ranks []dist.Transport, do func(w *dist.World) error) {
	t.Helper()
	errs := make([]error, len(ranks))
	var all sync.WaitGroup
	for r, transport := range ranks {
		all.Go(func() { errs[r] = do(dist.NewWorld(transport)) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// treeSum adds in float64 what ranks bring, from the root down: the left branch has
// the largest power of two of leaves that leaves one for the right one.
func treeSum(leaves [][]float32) []float32 {
	if len(leaves) == 1 {
		return leaves[0]
	}
	left := 1
	for 2*left < len(leaves) {
		left *= 2
	}
	a, b := treeSum(leaves[:left]), treeSum(leaves[left:])
	sum := make([]float32, len(a))
	for i := range a {
		sum[i] = simd.Narrow(float64(a[i]) + float64(b[i]))
	}
	return sum
}

// sameBits takes all that is not a number for equal.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
	})
}

// brought is what ranks bring to a sum: numbers of all sizes, zeros of both signs,
// sums that are subnormal, infinities and what is not a number.
func brought(ranks, n int) [][]float32 {
	r := rand.New(rand.NewPCG(uint64(ranks), uint64(n)))
	list := make([][]float32, ranks)
	for rank := range list {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(math.Ldexp(r.NormFloat64(), r.IntN(40)-20))
			switch i % 19 {
			case 3:
				v[i] = float32(math.Copysign(0, -1))
			case 5: // cancels but for a part below 2^-126
				v[i] = float32(math.Ldexp(1+float64(i%7)/8, -126)) * float32(1-2*(rank%2))
				if rank == 0 {
					v[i] = math.Nextafter32(v[i], 1)
				}
			case 7:
				v[i] = float32(math.Inf(1 - 2*r.IntN(2)))
			case 11:
				if r.IntN(3) == 0 {
					v[i] = float32(math.NaN())
				}
			}
		}
		list[rank] = v
	}
	return list
}

// The sum of all ranks is that of the tree, bit for bit, for any number of ranks and
// any length, over two calls of different lengths on one World.
func TestSum(t *testing.T) {
	for size := 1; size <= 9; size++ {
		for _, n := range []int{0, 1, size - 1, size, 37, 5000} {
			first, second := brought(size, n), brought(size, n/2+1)
			got := [2][][]float32{make([][]float32, size), make([][]float32, size)}
			onAll(t, newMemory(size), func(w *dist.World) error {
				for i, list := range [][][]float32{first, second} {
					v := slices.Clone(list[w.Rank()])
					if err := w.Sum(v, nil); err != nil {
						return err
					}
					got[i][w.Rank()] = v
				}
				return nil
			})
			for i, list := range [][][]float32{first, second} {
				want := treeSum(list)
				for rank, v := range got[i] {
					if !sameBits(v, want) {
						t.Errorf("%d ranks, %d numbers: the sum of rank %d is not the tree's", size, len(want), rank)
					}
				}
			}
		}
	}
	// It is that of the worlds by which training is tested.
	for size := 2; size <= 6; size++ {
		list := brought(size, 500)
		want := treeSum(list)
		var all sync.WaitGroup
		for rank, w := range traintest.Worlds(size) {
			all.Go(func() {
				if err := w.Sum(list[rank], nil); err != nil || !sameBits(list[rank], want) {
					t.Errorf("traintest: %d ranks: %v, or the sum of rank %d is another one", size, err, rank)
				}
			})
		}
		all.Wait()
	}
	// The law says something only if the order matters.
	list := brought(5, 5000)
	inOrder := slices.Clone(list[0])
	for _, v := range list[1:] {
		for i := range v {
			inOrder[i] = simd.Narrow(float64(inOrder[i]) + float64(v[i]))
		}
	}
	if sameBits(inOrder, treeSum(list)) {
		t.Error("adding one after the other gives the same bits: the numbers are no test of the order")
	}
}

// With a residual every value that travels is a bfloat16, all ranks get the same
// bits, and nothing is lost over time: the sum of what all calls return differs from
// the exact one by what is in the residuals, which does not grow.
func TestSumRounded(t *testing.T) {
	const n, steps = 1003, 200
	for _, size := range []int{2, 3, 4, 7} {
		type outcome struct {
			total, exact   []float64
			last, residual []float32
		}
		list := make([]outcome, size)
		onAll(t, newMemory(size), func(w *dist.World) error {
			o := &list[w.Rank()]
			*o = outcome{make([]float64, n), make([]float64, n), make([]float32, n), make([]float32, n)}
			for step := range steps {
				for rank := range size {
					// A part of each value that bfloat16 drops: without feedback the error grows.
					r := rand.New(rand.NewPCG(uint64(step), uint64(rank)))
					for i := range o.last {
						v := float32(1 + 0.001 + 0.1*r.NormFloat64()*float64(i%2))
						o.exact[i] += float64(v)
						if rank == w.Rank() {
							o.last[i] = v
						}
					}
				}
				if err := w.Sum(o.last, o.residual); err != nil {
					return err
				}
				for i, v := range o.last {
					o.total[i] += float64(v)
				}
			}
			return nil
		})
		for rank, o := range list {
			if !sameBits(o.last, list[0].last) {
				t.Errorf("%d ranks: rank %d has other bits than rank 0", size, rank)
			}
			for i, v := range o.last {
				if half.FromBFloat16(half.ToBFloat16(v)) != v {
					t.Fatalf("%d ranks: %g did not travel as bfloat16", size, v)
				}
				if r := math.Abs(float64(o.residual[i])); r > float64(size)/128 {
					t.Fatalf("%d ranks: a residual of %g", size, r)
				}
			}
		}
		for i := range n {
			missing := list[0].exact[i] - list[0].total[i]
			kept := 0.0
			for _, o := range list {
				kept += float64(o.residual[i])
			}
			// float32 additions of numbers up to 8 are off by 2^-22 each.
			if math.Abs(missing-kept) > steps*float64(size)*0x1p-22 {
				t.Fatalf("%d ranks: after %d steps %g is missing, and %g in the residuals", size, steps, missing, kept)
			}
		}
	}
}

// Without history, a rank's values are rounded and added by the tree, but the own
// ones of the chunk's owner, and the sum is rounded; and what is infinite poisons no
// residual.
func TestResidual(t *testing.T) {
	const size, n = 3, 9
	inf := float32(math.Inf(1))
	list := [][]float32{
		{1.001, 2, inf, 1.003, 3.4e38, 1, 1, 1.007, 1},
		{1.002, 3, 1, 1.004, 1, 1, 1, 1.008, 1},
		{1.004, 4, 1, 1.005, 1, 1, 1, 1.009, float32(math.NaN())},
	}
	round := func(v float32) float32 { return half.FromBFloat16(half.ToBFloat16(v)) }
	residuals := make([][]float32, size)
	got := make([][]float32, size)
	onAll(t, newMemory(size), func(w *dist.World) error {
		v, residual := slices.Clone(list[w.Rank()]), make([]float32, n)
		got[w.Rank()], residuals[w.Rank()] = v, residual
		return w.Sum(v, residual)
	})
	for i := range n {
		owner := i / 3
		var leaves [][]float32
		for rank, v := range list {
			x := v[i]
			if rank != owner {
				x = round(x)
			}
			leaves = append(leaves, []float32{x})
		}
		sum := treeSum(leaves)[0]
		for rank := range size {
			if !sameBits(got[rank][i:i+1], []float32{round(sum)}) {
				t.Errorf("value %d of rank %d: %g, want %g", i, rank, got[rank][i], round(sum))
			}
			lost := list[rank][i] - round(list[rank][i])
			if rank == owner {
				lost = sum - round(sum)
			}
			if lost-lost != 0 {
				lost = 0
			}
			if residuals[rank][i] != lost {
				t.Errorf("residual %d of rank %d: %g, want %g", i, rank, residuals[rank][i], lost)
			}
		}
	}
	w := dist.NewWorld(newMemory(2)[0])
	if err := w.Sum(make([]float32, 3), make([]float32, 2)); err == nil {
		t.Error("a residual of another length is no error")
	}
}

// Numbers and bytes of all ranks arrive by rank.
func TestGatherAndShare(t *testing.T) {
	for _, size := range []int{1, 2, 5} {
		onAll(t, newMemory(size), func(w *dist.World) error { return gatherAndShare(w) })
	}
	w := dist.NewWorld(newMemory(2)[0])
	if err := w.Gather(make([]float64, 2), make([]float64, 3)); err == nil {
		t.Error("a slice of another length is no error")
	}
}

func gatherAndShare(w *dist.World) error {
	all := make([]float64, 2*w.Size())
	if err := w.Gather([]float64{float64(w.Rank()), math.Pi}, all); err != nil {
		return err
	}
	for r := range w.Size() {
		if all[2*r] != float64(r) || all[2*r+1] != math.Pi {
			return fmt.Errorf("gathered %v", all)
		}
	}
	text := func(rank int) string { return fmt.Sprintf("%0*d", 3000*rank, rank)[:3000*rank] }
	shared, err := w.Share([]byte(text(w.Rank())))
	if err != nil {
		return err
	}
	for r, b := range shared {
		if string(b) != text(r) {
			return fmt.Errorf("rank %d shared %d bytes, which arrive otherwise", r, len(b))
		}
	}
	return nil
}
