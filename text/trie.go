package text

import "sort"

// trie finds the keys that a text begins with. The children of a node have
// consecutive numbers, in the order of their bytes.
type trie struct {
	label []byte  // by node: the byte that leads to it
	first []int32 // by node: its first child; the next node's first child ends them
	value []int32 // by node: of the key that ends there, or -1
}

// newTrie builds a trie over keys, which map to values of 0 and more. Empty
// keys are left out.
func newTrie(keys map[string]int32) *trie {
	sorted := make([]string, 0, len(keys))
	for k := range keys {
		if k != "" {
			sorted = append(sorted, k)
		}
	}
	sort.Strings(sorted)
	t := &trie{label: []byte{0}, value: []int32{-1}}
	// A node represents the keys lo to hi, which share depth bytes.
	type group struct{ lo, hi, depth int }
	nodes := []group{{0, len(sorted), 0}}
	for n := 0; n < len(nodes); n++ {
		g := nodes[n]
		t.first = append(t.first, int32(len(nodes)))
		if g.lo < g.hi && g.depth > 0 && len(sorted[g.lo]) == g.depth {
			t.value[n] = keys[sorted[g.lo]]
			g.lo++
		}
		for g.lo < g.hi {
			b, end := sorted[g.lo][g.depth], g.lo+1
			for end < g.hi && sorted[end][g.depth] == b {
				end++
			}
			nodes = append(nodes, group{g.lo, end, g.depth + 1})
			t.label, t.value = append(t.label, b), append(t.value, -1)
			g.lo = end
		}
	}
	t.first = append(t.first, int32(len(nodes)))
	return t
}

// step goes from node n along byte b; -1 if no key continues so. The root is
// node 0.
func (t *trie) step(n int32, b byte) int32 {
	lo, hi := t.first[n], t.first[n+1]
	for hi-lo > 8 {
		mid := (lo + hi) / 2
		if t.label[mid] <= b {
			lo = mid
		} else {
			hi = mid
		}
	}
	for ; lo < hi; lo++ {
		if t.label[lo] == b {
			return lo
		}
	}
	return -1
}

// longest finds the longest key in text at byte at: its value and end, or -1.
// It is a function because methods have no type parameters.
func longest[T string | []byte](t *trie, text T, at int) (value int32, end int) {
	value, end = -1, at
	for n, i := int32(0), at; i < len(text); i++ {
		if n = t.step(n, text[i]); n < 0 {
			break
		}
		if t.value[n] >= 0 {
			value, end = t.value[n], i+1
		}
	}
	return value, end
}
