package translate

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// charOrder is the largest character n-gram of chrF, chrfBeta the weight of
// recall relative to precision; chrF++ also has n-grams of up to maxWordOrder words.
const (
	charOrder    = 6
	maxWordOrder = 2
	chrfBeta     = 2
)

// CHRF is the chrF2 of translations against one or more references each, in
// percent (Popović 2015, 2016), as sacreBLEU computes it: n-grams of 1 to 6
// characters without white space, over the corpus, with the best reference of each
// sentence. wordOrder adds n-grams of 1 to wordOrder words: 0 is chrF2, 2 is
// chrF2++ (Popović 2017). lower ignores case, which is not the default there.
// Another wordOrder, and different numbers of translations and lists of references,
// are an error.
func CHRF(translations []string, references [][]string, wordOrder int, lower bool) (float64, error) {
	if err := paired(translations, references); err != nil {
		return 0, err
	}
	if wordOrder < 0 || wordOrder > maxWordOrder {
		return 0, fmt.Errorf("translate: want a word order from 0 to %d, got %d", maxWordOrder, wordOrder)
	}
	return chrf(translations, references, wordOrder, lower), nil
}

func chrf(translations []string, references [][]string, wordOrder int, lower bool) float64 {
	prepare := preparer(lower)
	var sum runStats
	for i, translation := range translations {
		own := runsOf(prepare(translation), wordOrder)
		var best runStats
		top := -1.0
		for _, reference := range references[i] {
			s := matchRuns(own, runsOf(prepare(reference), wordOrder))
			if f := s.score(); f > top {
				best, top = s, f
			}
		}
		for n := range sum {
			for k := range sum[n] {
				sum[n][k] += best[n][k]
			}
		}
	}
	return sum.score()
}

// runs has the n-grams with their counts: those of characters for each n, then
// those of words.
type runs [charOrder + maxWordOrder]map[string]int

// runStats has, for each kind of runs, the number of n-grams of the translation, of
// the reference, and of both.
type runStats [charOrder + maxWordOrder][3]int

// runsOf counts the n-grams of characters, and those of up to wordOrder words.
func runsOf(s string, wordOrder int) (counts runs) {
	all := words(s)
	joined := strings.Join(all, "")
	var starts []int // of characters, and the end
	for i := range joined {
		starts = append(starts, i)
	}
	starts = append(starts, len(joined))
	for n := range charOrder {
		counts[n] = map[string]int{}
		for i := 0; i+n+1 < len(starts); i++ {
			counts[n][joined[starts[i]:starts[i+n+1]]]++
		}
	}
	if wordOrder == 0 {
		return counts
	}
	all = withoutPunctuation(all)
	for n := range wordOrder {
		counts[charOrder+n] = map[string]int{}
		for i := 0; i+n < len(all); i++ {
			counts[charOrder+n][strings.Join(all[i:i+n+1], " ")]++
		}
	}
	return counts
}

// withoutPunctuation separates a sign at the end of each word or, if there is
// none, at its beginning.
func withoutPunctuation(list []string) (out []string) {
	for _, w := range list {
		last := len(w) - 1
		switch {
		case utf8.RuneCountInString(w) == 1:
			out = append(out, w)
		case isPunctuation(w[last]):
			out = append(out, w[:last], w[last:])
		case isPunctuation(w[0]):
			out = append(out, w[:1], w[1:])
		default:
			out = append(out, w)
		}
	}
	return out
}

// isPunctuation reports whether c is a sign of ASCII.
func isPunctuation(c byte) bool {
	return c > ' ' && c < 0x7f && !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z')
}

func matchRuns(own, reference runs) (s runStats) {
	for n := range s {
		for run, c := range own[n] {
			if len(reference[n]) > 0 {
				s[n][0] += c
			}
			s[n][2] += min(c, reference[n][run])
		}
		for _, c := range reference[n] {
			s[n][1] += c
		}
	}
	return s
}

// score returns the F-score of the mean precision and recall over the n for which
// both have n-grams.
func (s *runStats) score() float64 {
	precision, recall, orders := 0.0, 0.0, 0.0
	for _, c := range s {
		if c[0] > 0 && c[1] > 0 {
			precision += float64(c[2]) / float64(c[0])
			recall += float64(c[2]) / float64(c[1])
			orders++
		}
	}
	if precision+recall == 0 {
		return 0
	}
	precision, recall = precision/orders, recall/orders
	const factor = chrfBeta * chrfBeta
	return 100 * (1 + factor) * precision * recall / (factor*precision + recall)
}
