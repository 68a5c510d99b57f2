package translate

import "strings"

// charOrder is the largest character n-gram of chrF, chrfBeta the weight of
// recall relative to precision.
const (
	charOrder = 6
	chrfBeta  = 2
)

// CHRF is the chrF2 of translations against one or more references each, in
// percent (Popović 2015, 2016), as sacreBLEU computes it by default: n-grams of 1
// to 6 characters without white space, over the corpus, with the best reference
// of each sentence. lower ignores case, which is not the default there.
// Different numbers of translations and lists of references are an error.
func CHRF(translations []string, references [][]string, lower bool) (float64, error) {
	if err := paired(translations, references); err != nil {
		return 0, err
	}
	return chrf(translations, references, lower), nil
}

func chrf(translations []string, references [][]string, lower bool) float64 {
	prepare := preparer(lower)
	var sum charStats
	for i, translation := range translations {
		own := charRuns(prepare(translation))
		var best charStats
		top := -1.0
		for _, reference := range references[i] {
			s := matchRuns(own, charRuns(prepare(reference)))
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

// charStats has, for each n, the number of n-grams of the translation, of the
// reference, and of both.
type charStats [charOrder][3]int

// charRuns counts the n-grams of each n.
func charRuns(s string) (counts [charOrder]map[string]int) {
	s = strings.Join(strings.FieldsFunc(s, isSpace), "")
	var starts []int // of characters, and the end
	for i := range s {
		starts = append(starts, i)
	}
	starts = append(starts, len(s))
	for n := range counts {
		counts[n] = map[string]int{}
		for i := 0; i+n+1 < len(starts); i++ {
			counts[n][s[starts[i]:starts[i+n+1]]]++
		}
	}
	return counts
}

func matchRuns(own, reference [charOrder]map[string]int) (s charStats) {
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
func (s *charStats) score() float64 {
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
