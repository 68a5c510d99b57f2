package transcribe

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
)

// LM is a back-off n-gram language model. It is safe for concurrent use.
type LM struct {
	order   int
	ids     map[string]int32
	grams   map[gram]entry // n-grams of all orders by their words
	begin   int32          // <s>; -1 if there is none
	end     int32          // </s>; -1 if there is none
	unknown int32          // <unk>, which stands in for every word that the model lacks
	note    string         // what was unusual about the lines of its file, or ""
}

// Note returns what was unusual about the lines of the model's file, or "".
func (l *LM) Note() string { return l.note }

// mostOrder is the largest order of a model.
const mostOrder = 5

// gram is the ids of an n-gram's words plus one, the last word last; zeros come
// before a shorter one.
type gram [mostOrder]int32

// entry is natural logarithms.
type entry struct{ probability, backoff float32 }

// unknownWord is the log10 probability of an unknown word if a model has no
// <unk>.
const unknownWord = -7

// leastLog10 replaces the logarithm of a probability of zero: a small weight
// still excludes the word, and a weight of zero still gives zero.
const leastLog10 = -99

// mostGrams is the largest number of n-grams of a model.
const mostGrams = 30 << 20

// lmState is the words that the probability of the next word depends on, the
// latest last.
type lmState [mostOrder - 1]int32

// ReadLM reads a model in ARPA format, plain or gzipped, of an order of at most
// 5. Words are compared exactly, so their case must be that of the texts. A file
// that cannot be read or does not follow the format is a *data.InputError with
// the line; a cancelled ctx returns its error.
func ReadLM(ctx context.Context, path string) (*LM, error) {
	r, err := data.OpenLines(path, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	lm, err := readLM(r, ctx.Err)
	if err == nil {
		lm.note = r.Note()
	}
	return lm, err
}

// readLM reads a model; stop returns the error with which reading is to end, or
// nil.
func readLM(r *data.LineReader, stop func() error) (*LM, error) {
	defer r.Close()
	p := &arpa{lines: r, stop: stop, lm: &LM{ids: map[string]int32{}, grams: map[gram]entry{}}}
	if err := p.read(); err != nil {
		return nil, err
	}
	return p.lm, nil
}

// checkEvery is the number of lines of a file after which its reader checks
// whether to stop.
const checkEvery = 1 << 10

// arpa reads the ARPA format: lines before \data\ are comments; counts of
// n-grams; for each order a section of lines with log10 probability, words and
// log10 back-off weight; \end\.
type arpa struct {
	lines  *data.LineReader
	stop   func() error
	lm     *LM
	counts []int
}

func (p *arpa) errorf(format string, args ...any) error {
	return &data.InputError{File: p.lines.File, Line: p.lines.Line, Problem: fmt.Sprintf(format, args...)}
}

// next returns the next line that is not blank, trimmed.
func (p *arpa) next() (string, error) {
	for {
		if p.lines.Line%checkEvery == 0 {
			if err := p.stop(); err != nil {
				return "", err
			}
		}
		line, err := p.lines.Next()
		if err == io.EOF {
			return "", p.errorf(`is not an ARPA model, or truncated: it ends without \end\`)
		}
		if err != nil {
			return "", err
		}
		if line = strings.Trim(line, blanks); line != "" {
			return line, nil
		}
	}
}

// blanks separate the fields of a line. Other space, such as U+00A0, may be part
// of a word.
const blanks = " \t\r\v\f"

func fields(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(blanks, r) })
}

func (p *arpa) read() error {
	line, err := p.next()
	for err == nil && line != `\data\` {
		line, err = p.next()
	}
	if err != nil {
		return err
	}
	if line, err = p.readCounts(); err != nil {
		return err
	}
	lm := p.lm
	lm.order = len(p.counts)
	for n := 1; n <= lm.order; n++ {
		if want := fmt.Sprintf(`\%d-grams:`, n); line != want {
			return p.errorf("want %s, got %.40q", want, line)
		}
		if line, err = p.section(n); err != nil {
			return err
		}
	}
	if line != `\end\` {
		return p.errorf(`want \end\, got %.40q`, line)
	}
	find := func(names ...string) int32 {
		for _, name := range names {
			if id, ok := lm.ids[name]; ok {
				return id
			}
		}
		return -1
	}
	lm.begin, lm.end = find("<s>", "<S>"), find("</s>", "</S>")
	if lm.unknown = find("<unk>", "<UNK>"); lm.unknown < 0 {
		lm.unknown = int32(len(lm.ids))
		lm.grams[gram{mostOrder - 1: lm.unknown + 1}] = entry{probability: unknownWord * math.Ln10}
	}
	return nil
}

// readCounts reads "ngram N=COUNT" lines and returns the line after them.
func (p *arpa) readCounts() (string, error) {
	for {
		line, err := p.next()
		if err != nil || !strings.HasPrefix(line, "ngram ") {
			if err == nil && len(p.counts) == 0 {
				err = p.errorf(`want "ngram 1=" and its count, got %.40q`, line)
			}
			return line, err
		}
		order, count, _ := strings.Cut(strings.TrimPrefix(line, "ngram "), "=")
		n, err1 := strconv.Atoi(strings.TrimSpace(order))
		c, err2 := strconv.Atoi(strings.TrimSpace(count))
		switch {
		case err1 != nil || err2 != nil || n != len(p.counts)+1 || c < 0:
			return "", p.errorf(`want "ngram %d=" and its count, got %.40q`, len(p.counts)+1, line)
		case n > mostOrder:
			return "", p.errorf("has n-grams of order %d; at most %d are supported", n, mostOrder)
		}
		p.counts = append(p.counts, c)
	}
}

// section reads the n-grams of one order and returns the line after them.
func (p *arpa) section(n int) (string, error) {
	for got := 0; ; got++ {
		line, err := p.next()
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(line, `\`) && len(fields(line)) == 1 {
			if got != p.counts[n-1] {
				return "", p.errorf("has %d n-grams of order %d, but its header has %d", got, n, p.counts[n-1])
			}
			return line, nil
		}
		if len(p.lm.grams) >= mostGrams {
			return "", p.errorf("has more than %d n-grams; prune the model", mostGrams)
		}
		if err := p.gram(n, fields(line)); err != nil {
			return "", err
		}
	}
}

func (p *arpa) gram(n int, fields []string) error {
	if len(fields) != n+1 && len(fields) != n+2 {
		return p.errorf("want a probability, %s and perhaps a back-off weight, got %d fields", report.Plural(n, "word"), len(fields))
	}
	number := func(s, what string, most float64) (float32, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || v > most {
			return 0, p.errorf("want the log10 of a %s, at most %v, got %.40q", what, most, s)
		}
		return float32(max(v, leastLog10) * math.Ln10), nil
	}
	var e entry
	var err error
	if e.probability, err = number(fields[0], "probability", 0); err != nil {
		return err
	}
	if len(fields) == n+2 {
		if e.backoff, err = number(fields[n+1], "back-off weight", 10); err != nil {
			return err
		}
	}
	var g gram
	for i, word := range fields[1 : n+1] {
		id, known := p.lm.ids[word]
		if !known && n > 1 {
			return p.errorf("%.40q is not one of the 1-grams", word)
		}
		if !known {
			id = int32(len(p.lm.ids))
			p.lm.ids[strings.Clone(word)] = id
		}
		g[mostOrder-n+i] = id + 1
	}
	p.lm.grams[g] = e
	return nil
}

// Order returns the largest n of the model's n-grams.
func (l *LM) Order() int { return l.order }

// Has reports whether the model has a word.
func (l *LM) Has(word string) bool { _, ok := l.ids[word]; return ok }

// spelled reports whether the alphabet has the tokens of some word of the model;
// with units, whether some token is a word of the model.
func (l *LM) spelled(a *alphabet, units bool) bool {
	if units || a.Kind == "space" {
		return slices.ContainsFunc(a.Units, func(u string) bool { return l.Has(lmName(u)) })
	}
	for word := range l.ids {
		if _, unknown := a.encode(word); unknown == nil {
			return true
		}
	}
	return false
}

// lmName returns the name of a token in language models of tokens.
func lmName(unit string) string {
	if rest, begins := strings.CutPrefix(unit, space); begins && rest != "" {
		return "▁" + rest
	} else if begins {
		return "<space>"
	}
	return unit
}

// start returns the state at the beginning of a sentence.
func (l *LM) start() lmState {
	var s lmState
	if l.begin >= 0 {
		s[len(s)-1] = l.begin + 1
	}
	return l.trim(s)
}

// trim removes the words that no n-gram is long enough for.
func (l *LM) trim(s lmState) lmState {
	clear(s[:len(s)-min(l.order-1, len(s))])
	return s
}

// score returns the natural logarithm of the probability of a word in a state,
// and the state after it. A word that the model lacks is <unk>, with the back-off
// weights of its context and the n-grams that contain it.
func (l *LM) score(s lmState, word string) (float64, lmState) {
	id, ok := l.ids[word]
	if !ok {
		id = l.unknown
	}
	return l.scoreID(s, id)
}

// finish returns the logarithm of the probability that the sentence ends in a
// state; 0 if the model has no </s>.
func (l *LM) finish(s lmState) float64 {
	if l.end < 0 {
		return 0
	}
	p, _ := l.scoreID(s, l.end)
	return p
}

func (l *LM) scoreID(s lmState, id int32) (float64, lmState) {
	var g gram
	copy(g[:], s[:])
	g[mostOrder-1] = id + 1
	next := l.trim(lmState(g[1:]))
	var backoff float64
	for k := range mostOrder - 1 { // drop the earliest word until the n-gram is there
		if g[k] == 0 {
			continue
		}
		if e, ok := l.grams[g]; ok {
			return backoff + float64(e.probability), next
		}
		var context gram // the words before the last one
		copy(context[1:], g[:mostOrder-1])
		backoff += float64(l.grams[context].backoff)
		g[k] = 0
	}
	return backoff + float64(l.grams[g].probability), next // every word is a 1-gram
}
