package transcribe

import "slices"

// Errors counts the differences between a hypothesis and its reference: the least
// number of substitutions, deletions and insertions that change one into the
// other (Levenshtein distance).
type Errors struct {
	Reference     int `json:"reference"`     // number of items of the reference
	Hits          int `json:"hits"`          // number of items that are right
	Substitutions int `json:"substitutions"` // number of items that are replaced by another
	Deletions     int `json:"deletions"`     // number of items that are missing
	Insertions    int `json:"insertions"`    // number of items that are added
}

// Total returns the number of errors.
func (e Errors) Total() int { return e.Substitutions + e.Deletions + e.Insertions }

// Rate returns the errors per item of the reference, which may exceed 1; for an
// empty reference, the number of insertions.
func (e Errors) Rate() float64 { return float64(e.Total()) / float64(max(e.Reference, 1)) }

func (e *Errors) add(f Errors) {
	e.Reference += f.Reference
	e.Hits += f.Hits
	e.Substitutions += f.Substitutions
	e.Deletions += f.Deletions
	e.Insertions += f.Insertions
}

// numbers returns the counts as ranks send them to each other; errorsOf is the inverse.
func (e Errors) numbers() []float64 {
	return []float64{float64(e.Reference), float64(e.Hits), float64(e.Substitutions), float64(e.Deletions), float64(e.Insertions)}
}

func errorsOf(x []float64) Errors {
	return Errors{Reference: int(x[0]), Hits: int(x[1]), Substitutions: int(x[2]), Deletions: int(x[3]), Insertions: int(x[4])}
}

// Pair is a position of an alignment: an item of the reference and one of the
// hypothesis; one of them is "" for a deletion or an insertion.
type Pair struct {
	Reference  string `json:"reference"`
	Hypothesis string `json:"hypothesis"`
}

// Align aligns a reference and a hypothesis with the fewest errors. Among such
// alignments it chooses that of jiwer and rapidfuzz: equal beginnings and ends
// match; between them, from the end, a deletion takes precedence, and an
// insertion is chosen if the previous item of the hypothesis matches better. Very
// long texts are divided into parts that are aligned separately.
func Align(reference, hypothesis []string) ([]Pair, Errors) {
	e := Errors{Reference: len(reference)}
	var pairs, tail []Pair
	for len(reference) > 0 && len(hypothesis) > 0 && reference[0] == hypothesis[0] {
		pairs = append(pairs, Pair{reference[0], hypothesis[0]})
		reference, hypothesis = reference[1:], hypothesis[1:]
	}
	for n, m := len(reference), len(hypothesis); n > 0 && m > 0 && reference[n-1] == hypothesis[m-1]; n, m = n-1, m-1 {
		tail = append(tail, Pair{reference[n-1], hypothesis[m-1]})
		reference, hypothesis = reference[:n-1], hypothesis[:m-1]
	}
	e.Hits = len(pairs) + len(tail)
	parts := 1 + len(reference)*len(hypothesis)/mostCells
	for k := parts - 1; k >= 0; k-- {
		part := func(s []string) []string { return s[k*len(s)/parts : (k+1)*len(s)/parts] }
		tail = e.trace(tail, part(reference), part(hypothesis))
	}
	slices.Reverse(tail)
	return append(pairs, tail...), e
}

// mostCells is the largest size of the table of an alignment.
const mostCells = 1 << 25

// trace appends pairs from the end to the beginning, and counts them.
func (e *Errors) trace(back []Pair, reference, hypothesis []string) []Pair {
	n, m := len(reference), len(hypothesis)
	cost := make([]int32, (n+1)*(m+1))
	at := func(i, j int) *int32 { return &cost[i*(m+1)+j] }
	for i := range n + 1 {
		*at(i, 0) = int32(i)
	}
	for j := range m + 1 {
		*at(0, j) = int32(j)
	}
	for i := 1; i <= n; i++ {
		for j := 1; j <= m; j++ {
			change := *at(i-1, j-1)
			if reference[i-1] != hypothesis[j-1] {
				change++
			}
			*at(i, j) = min(*at(i-1, j)+1, *at(i, j-1)+1, change)
		}
	}
	for i, j := n, m; i > 0 || j > 0; {
		switch {
		case i > 0 && *at(i, j) == *at(i-1, j)+1:
			i--
			e.Deletions++
			back = append(back, Pair{Reference: reference[i]})
		case i == 0 || j > 1 && *at(i, j-1) < *at(i-1, j-1):
			j--
			e.Insertions++
			back = append(back, Pair{Hypothesis: hypothesis[j]})
		default:
			i, j = i-1, j-1
			if reference[i] == hypothesis[j] {
				e.Hits++
			} else {
				e.Substitutions++
			}
			back = append(back, Pair{reference[i], hypothesis[j]})
		}
	}
	return back
}
