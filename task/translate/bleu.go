package translate

import (
	"fmt"
	"math"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// maxOrder is the largest n-gram of BLEU.
const maxOrder = 4

// BLEUScore is the BLEU of a corpus, in percent, with its components.
type BLEUScore struct {
	Score           float64
	Matches, Totals [maxOrder]int     // numbers of n-grams that a reference has too, and of all, for n = 1 to 4
	Precisions      [maxOrder]float64 // in percent, smoothed
	BrevityPenalty  float64
	Length          int // number of words of the translations
	ReferenceLength int // number of words of the references, of each the one closest in length
}

// String returns the score in the format of sacreBLEU.
func (s *BLEUScore) String() string {
	ratio := 0.0
	if s.ReferenceLength > 0 {
		ratio = float64(s.Length) / float64(s.ReferenceLength)
	}
	return fmt.Sprintf("BLEU = %.2f %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = %d ref_len = %d)",
		s.Score, s.Precisions[0], s.Precisions[1], s.Precisions[2], s.Precisions[3], s.BrevityPenalty, ratio, s.Length, s.ReferenceLength)
}

// BLEU scores translations against one or more references each (Papineni et al.
// 2002), as sacreBLEU does (Post 2018): over the corpus, with exponential
// smoothing. tokenizer divides sentences into tokens: 13a (sacreBLEU's default),
// intl, zh, char or none; for "" it is the one that [BLEUTokenizer] chooses for
// the references. lower ignores case, as its option -lc. Another tokenizer, and
// different numbers of translations and lists of references, are an error.
func BLEU(translations []string, references [][]string, tokenizer string, lower bool) (*BLEUScore, error) {
	if err := paired(translations, references); err != nil {
		return nil, err
	}
	if tokenizer == "" {
		tokenizer = BLEUTokenizer(func(yield func(string) bool) {
			for _, list := range references {
				for _, s := range list {
					if !yield(s) {
						return
					}
				}
			}
		})
	}
	if bleuTokenizers[tokenizer] == nil {
		return nil, fmt.Errorf("translate: want the tokenizer 13a, intl, zh, char or none, got %q", tokenizer)
	}
	return bleu(translations, references, tokenizer, lower), nil
}

func bleu(translations []string, references [][]string, tokenizer string, lower bool) *BLEUScore {
	s := &BLEUScore{}
	prepare, cut := preparer(lower), bleuTokenizers[tokenizer]
	tokens := func(sentence string) []string { return words(cut(prepare(sentence))) }
	for i, translation := range translations {
		words := tokens(translation)
		counts := countRuns(words)
		most := map[string]int{} // of each run in one reference
		nearest := -1
		for _, reference := range references[i] {
			other := tokens(reference)
			for run, c := range countRuns(other) {
				most[run] = max(most[run], c)
			}
			if d, e := abs(len(other)-len(words)), abs(nearest-len(words)); nearest < 0 || d < e || d == e && len(other) < nearest {
				nearest = len(other)
			}
		}
		s.Length += len(words)
		s.ReferenceLength += max(nearest, 0)
		for run, c := range counts {
			order := strings.Count(run, " ")
			s.Matches[order] += min(c, most[run])
			s.Totals[order] += c
		}
	}
	s.compute()
	return s
}

// counts returns the counts of which the score is computed; bleuOf reads sums of them.
func (s *BLEUScore) counts() []float64 {
	list := []float64{float64(s.Length), float64(s.ReferenceLength)}
	for n := range maxOrder {
		list = append(list, float64(s.Matches[n]), float64(s.Totals[n]))
	}
	return list
}

func bleuOf(counts []float64) *BLEUScore {
	s := &BLEUScore{Length: int(counts[0]), ReferenceLength: int(counts[1])}
	for n := range maxOrder {
		s.Matches[n], s.Totals[n] = int(counts[2+2*n]), int(counts[3+2*n])
	}
	return s
}

// paired returns an error if there is not one list of references per translation.
func paired(translations []string, references [][]string) error {
	if len(translations) != len(references) {
		return fmt.Errorf("translate: %d translations need %[1]d lists of references, got %[2]d", len(translations), len(references))
	}
	return nil
}

func abs(n int) int { return max(n, -n) }

func (s *BLEUScore) compute() {
	s.BrevityPenalty = 1
	if s.Length < s.ReferenceLength {
		s.BrevityPenalty = 0
		if s.Length > 0 {
			s.BrevityPenalty = math.Exp(1 - float64(s.ReferenceLength)/float64(s.Length))
		}
	}
	if s.Matches == [maxOrder]int{} {
		return
	}
	smooth, sum := 1.0, 0.0
	for n := range maxOrder {
		switch {
		case s.Totals[n] == 0: // no sentence has that length
			return
		case s.Matches[n] == 0:
			smooth *= 2
			s.Precisions[n] = 100 / (smooth * float64(s.Totals[n]))
		default:
			s.Precisions[n] = 100 * float64(s.Matches[n]) / float64(s.Totals[n])
		}
		sum += math.Log(s.Precisions[n])
	}
	s.Score = s.BrevityPenalty * math.Exp(sum/maxOrder)
}

// countRuns counts the n-grams of 1 to 4 words, each written with single spaces.
func countRuns(words []string) map[string]int {
	counts := map[string]int{}
	for i := range words {
		for n := 1; n <= maxOrder && i+n <= len(words); n++ {
			counts[strings.Join(words[i:i+n], " ")]++
		}
	}
	return counts
}

// preparer returns a function that normalises a sentence as sacreBLEU does before
// it divides it into words.
func preparer(lower bool) func(string) string {
	caser := cases.Lower(language.Und, cases.HandleFinalSigma(true)) // as Python's str.lower
	return func(s string) string {
		s = strings.ToValidUTF8(s, "\uFFFD")
		if lower {
			s = caser.String(s)
		}
		return strings.TrimRightFunc(s, isSpace)
	}
}
