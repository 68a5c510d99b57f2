package memory

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func newTestBatch(t *testing.T, name string, length, n int) *batch {
	t.Helper()
	c := Defaults()
	c.Problem, c.Length = name, length
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b := m.newBatch()
	b.load(training, 0, n)
	return b
}

// One mark in each half, the answer their sum, and 1 as the best guess without memory.
func TestAdding(t *testing.T) {
	const n, length = 4000, 21
	b := newTestBatch(t, "adding", length, n)
	var guess score
	for row := range n {
		x, sum := b.x[row*length*2:][:length*2], float32(0)
		var marks []int
		for k := range length {
			if v := x[2*k]; v < 0 || v >= 1 {
				t.Fatalf("number %v", v)
			}
			if x[2*k+1] == 1 {
				marks = append(marks, k)
				sum += x[2*k]
			}
		}
		if len(marks) != 2 || marks[0] >= length/2 || marks[1] < length/2 || b.y[row] != sum {
			t.Fatalf("marks at %v, sum %v, want %v", marks, b.y[row], sum)
		}
		guess.add(adding.score([]float32{1}, b, row, length))
	}
	if got := guess.mean().Error; math.Abs(got-adding.baseline(length)) > 0.01 {
		t.Errorf("answering 1 has the error %v, want about %v", got, adding.baseline(length))
	}
	right := adding.score([]float32{b.y[0] + 0.03}, b, 0, length)
	if s := right.mean(); s.Right != 1 || math.Abs(s.Error-0.0009) > 1e-6 {
		t.Errorf("an answer off by 0.03 scores %+v", s)
	}
}

// marked is the one place of a step that is 1, among zeros.
func marked(t *testing.T, step []float32) int32 {
	t.Helper()
	i := slices.Index(step, 1)
	for j, v := range step {
		if i < 0 || j != i && v != 0 {
			t.Fatalf("a step holds %v, want a single 1", step)
		}
	}
	return int32(i)
}

// The sequence is what the papers say, perfect answers score 0 and all, and the
// best answers without memory score the baseline.
func TestCopy(t *testing.T) {
	const n, length = 50, 7
	steps := length + 20
	b := newTestBatch(t, "copy", length, n)
	if b.steps != steps {
		t.Fatalf("%d steps, want %d", b.steps, steps)
	}
	for row := range n {
		var in []int32
		for k := range steps {
			in = append(in, marked(t, b.x[(row*steps+k)*10:][:10]))
		}
		want := b.next[row*steps:][:steps]
		if len(in) != steps || slices.Max(in[:10]) > 7 || !slices.Equal(in[:10], want[steps-10:]) || in[steps-11] != goSign {
			t.Fatalf("input %v, wanted %v", in, want)
		}
		for k := range steps {
			if k < steps-10 && want[k] != blank || k >= 10 && k != steps-11 && in[k] != blank {
				t.Fatalf("step %d: input %d, wanted %d", k, in[k], want[k])
			}
		}
		perfect, blind := make([]float32, steps*9), make([]float32, steps*9)
		for k, w := range want {
			perfect[k*9+int(w)] = 100
			if k < steps-10 {
				blind[k*9+blank] = 100
			} else {
				blind[k*9+blank] = -100
			}
		}
		if s := copying.score(perfect, b, row, length).mean(); s.Error > 1e-6 || s.Right != 1 || !copying.solved(s, length) {
			t.Fatalf("perfect answers score %+v", s)
		}
		if s := copying.score(blind, b, row, length).mean(); math.Abs(s.Error-10*math.Log(8)/float64(steps)) > 1e-9 || copying.solved(s, length) {
			t.Fatalf("answers without memory score %+v, want the error %v", s, copying.baseline(length))
		}
	}
}

// embeddedReber lists every string of the grammar up to a length, from the rules
// as they are drawn in the literature.
func embeddedReber(most int) []string {
	rules := map[string][]string{ // of the inner grammar, by node
		"1": {"T2", "P3"}, "2": {"S2", "X4"}, "3": {"T3", "V5"}, "4": {"X3", "S6"}, "5": {"P4", "V6"}, "6": {""},
	}
	var inner func(node string, room int) []string
	inner = func(node string, room int) []string {
		var all []string
		for _, r := range rules[node] {
			if r == "" {
				all = append(all, "")
			} else if room > 0 {
				for _, rest := range inner(r[1:], room-1) {
					all = append(all, r[:1]+rest)
				}
			}
		}
		return all
	}
	var all []string
	for _, s := range inner("1", most-6) {
		for _, o := range []string{"T", "P"} {
			all = append(all, "B"+o+"B"+s+"E"+o+"E")
		}
	}
	return all
}

// Drawn strings belong to the grammar, both kinds of every short one come up, and
// what may follow is what does follow in the list of all strings.
func TestReber(t *testing.T) {
	const n, length, short = 3000, 14, 10
	all := embeddedReber(20)
	follows := map[string]uint8{}
	for _, s := range all {
		for i := range s[1:] {
			follows[s[:i+1]] |= 1 << strings.IndexByte("BTPSXVE", s[i+1])
		}
	}
	b := newTestBatch(t, "reber", length, n)
	seen := map[string]bool{}
	for row := range n {
		var s strings.Builder
		steps := int(b.lengths[row])
		for k := range steps {
			hot := b.x[(row*b.steps+k)*reberSymbols:][:reberSymbols]
			s.WriteByte("BTPSXVE"[marked(t, hot)])
			if want := follows[s.String()]; b.legal[row*b.steps+k] != want {
				t.Fatalf("after %s: %07b may follow, want %07b", s.String(), b.legal[row*b.steps+k], want)
			}
		}
		s.WriteByte("BTPSXVE"[b.next[row*b.steps+steps-1]])
		text := s.String()
		if !slices.Contains(all, text) {
			t.Fatalf("%s is not of the grammar", text)
		}
		if len(text) > length {
			t.Fatalf("%s is longer than %d", text, length)
		}
		seen[text] = true
		if steps < b.steps && b.next[row*b.steps+steps] != ignored {
			t.Fatalf("%s: something is wanted after its end", text)
		}
	}
	for _, s := range all {
		if len(s) <= short && !seen[s] {
			t.Errorf("%s never came", s)
		}
	}
	// The last but one symbol needs the second: a network that ranks T and P alike fails.
	out := make([]float32, b.steps*reberSymbols)
	for k := range b.steps {
		for i := range reberSymbols {
			out[k*reberSymbols+i] = float32(b.legal[k] >> i & 1)
		}
	}
	if s := reber.score(out, b, 0, length); s.right != 1 {
		t.Errorf("perfect answers score %+v", s)
	}
	at := int(b.lengths[0]) - 2
	out[at*reberSymbols+symT], out[at*reberSymbols+symP] = 1, 1
	if s := reber.score(out, b, 0, length); s.right != 0 || s.err != 1 {
		t.Errorf("answers without memory score %+v", s)
	}
}

// Number, seed and use make a sequence; nothing else does.
func TestSequencesAreReproducible(t *testing.T) {
	a, b := newTestBatch(t, "adding", 30, 20), newTestBatch(t, "adding", 30, 7)
	b.load(training, 10, 7)
	if !slices.Equal(a.x[10*60:17*60], b.x) || !slices.Equal(a.y[10:17], b.y) {
		t.Error("sequence 10 depends on its batch")
	}
	b.load(tested, 10, 7)
	if slices.Equal(a.y[10:17], b.y) {
		t.Error("training and test have the same sequences")
	}
}
