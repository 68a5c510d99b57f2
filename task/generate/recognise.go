package generate

import (
	"cmp"
	"context"
	"iter"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// A model remembers two things of each document of a part: the document as a whole,
// or the piece of it that was in the part, and its lines. By the pieces a text that was
// divided is divided at the same characters again, also with more text after it; by the
// lines a text that was cut or put in another order is recognised. The hashes of
// pieces are odd, those of lines even.

// mostLines is the number of lines of all parts that are remembered. Of more, a half, a
// quarter and so on: those whose hashes begin with zeros.
const mostLines = 1 << 22

// Remember adds the documents of all parts to a model's memory. A document that cannot be
// read any more is left out.
func (d *Data) Remember(m *task.Memory) {
	r := &reading{ctx: context.Background()}
	var known sample
	var pieces [3][]uint64
	for i, part := range parts {
		for _, doc := range d.Of(part) {
			h := uint64(pieceBasis)
			for line := range shortLines(lines(r.blocks(doc))) {
				h = addBytes(h, line)
				if !isBlank(line) {
					known.add(i, lineSum(line))
				}
			}
			if r.err == nil {
				pieces[i] = append(pieces[i], h|1)
			}
		}
	}
	if len(d.Whole) < manyDocuments {
		for _, doc := range d.Whole {
			d.rememberCuts(r, &known, doc)
		}
	}
	for i, part := range parts {
		m.Add(part, append(known.sums[i], pieces[i]...)...)
	}
}

// parts are the parts of a training, the last that which counts most.
var parts = []task.Part{task.Training, task.Validation, task.Test}

// sample is hashes of lines by part, at most mostLines in all.
type sample struct {
	sums  [3][]uint64
	zeros int // at the beginning of those that are kept
}

func (s *sample) add(part int, sum uint64) {
	if bits.LeadingZeros64(sum) < s.zeros {
		return
	}
	s.sums[part] = append(s.sums[part], sum)
	for len(s.sums[0])+len(s.sums[1])+len(s.sums[2]) > mostLines {
		s.zeros++
		for i := range s.sums {
			s.sums[i] = slices.DeleteFunc(s.sums[i], func(sum uint64) bool { return bits.LeadingZeros64(sum) < s.zeros })
		}
	}
}

// rememberCuts adds the lines of a divided document that are cut, to the parts that
// have their beginnings.
func (d *Data) rememberCuts(r *reading, known *sample, doc data.Document) {
	at := int64(0)
	for i, part := range parts[:2] {
		for _, piece := range d.Of(part) {
			if n := at + piece.Size(); n < doc.Size() && doc.Begins(at, piece) {
				at = n
				end := int64(0)
				for line := range shortLines(lines(r.blocks(doc))) {
					if end += int64(len(line)); end > n {
						if end-int64(len(line)) < n {
							known.add(i, lineSum(line))
						}
						break
					}
				}
				break
			}
		}
	}
}

// longLine is the number of bytes from which on a line is divided, so that a text of a
// single line is recognised when it is cut, too.
const longLine = 400

// shortLines iterates over lines. A long line is divided after some of its
// words, which depend on the words alone and not on where the line begins.
func shortLines(lines iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range lines {
			for len(line) > longLine {
				n := unit(line)
				if !yield(line[:n]) {
					return
				}
				line = line[n:]
			}
			if line != "" && !yield(line) {
				return
			}
		}
	}
}

// unit returns the length of the first part of a long line: up to a pair of words of
// which about one in sixteen ends a part.
func unit(line string) int {
	before, at := 0, 0
	for {
		n := strings.IndexByte(line[at:], ' ')
		if n < 0 {
			return len(line)
		}
		pair := pieceSum(line[before : at+n])
		before, at = at, at+n+1
		if pair*0x9e3779b97f4a7c15>>60 == 0 {
			return at
		}
	}
}

// Recognise divides the documents of the file by a model's memory. The error is ctx's, or a
// *data.InputError for a text that cannot be read.
func (d *Data) Recognise(ctx context.Context, m *task.Memory) error {
	d.Whole = d.Of(task.All)
	known := knownPieces(m)
	r := &reading{ctx: ctx}
	whole := make([]uint64, len(d.Whole))
	for i, doc := range d.Whole {
		h := uint64(pieceBasis)
		for block := range r.blocks(doc) {
			h = addBytes(h, block)
		}
		whole[i] = h | 1
	}
	var of []task.Part
	var pieces []data.Document
	for i, part := range m.Divide(whole) {
		doc := d.Whole[i]
		if known.parts[whole[i]] != "" {
			of, pieces = append(of, part), append(pieces, doc)
			continue
		}
		first, from, to := len(pieces), int64(0), int64(0)
		known.divide(r, doc, func(part task.Part, n int64) {
			if last := len(pieces) - 1; last < first || of[last] != part {
				of, pieces, from = append(of, part), append(pieces, doc), to
			}
			to += n
			pieces[len(pieces)-1] = doc.Slice(from, to)
		})
	}
	if r.err != nil {
		return r.err
	}
	d.Divide(of, pieces)
	d.coded = task.Memo{} // of the texts as they were divided before
	return nil
}

// Scored describes the scoring of a part; its rows are lines. The errors are those of
// Recognise.
func (d *Data) Scored(ctx context.Context, part task.Part) (task.Scored, error) {
	r := &reading{ctx: ctx}
	s := d.Parts.ScoredBy(part, func(doc data.Document) (n int) {
		for range lines(r.blocks(doc)) {
			n++
		}
		return max(n, 1)
	})
	return s, r.err
}

// pieces are the pieces that a model remembers, for looking for them at each character
// of a text.
type pieces struct {
	*task.Memory
	parts  map[uint64]task.Part
	likely [1 << 16]bool // by the upper bits of a hash: there is a piece with these
	zeros  int           // at the beginning of the hashes of the lines that are remembered
}

func knownPieces(m *task.Memory) *pieces {
	p := &pieces{Memory: m, parts: map[uint64]task.Part{}}
	n, all := 0, uint64(0)       // of the lines
	for _, part := range parts { // the last counts
		for _, sum := range m.Sums(part) {
			if sum&1 == 1 {
				p.parts[sum] = part
				p.likely[sum>>48] = true
			} else {
				n, all = n+1, all|sum
			}
		}
	}
	if n > mostLines/4 { // so many would have all beginnings if none were left out
		p.zeros = bits.LeadingZeros64(all)
	}
	return p
}

// mostPieces is the number of pieces of a training's document, one for each part.
const mostPieces = 3

// divide calls use with the pieces of a text in order, and their lengths.
func (p *pieces) divide(r *reading, doc data.Document, use func(part task.Part, n int64)) {
	for range mostPieces {
		n, part := p.prefix(r, doc)
		if n == 0 {
			break
		}
		use(part, n)
		doc = doc.Slice(n, doc.Size())
	}
	p.divideLines(r, doc, use)
}

// prefix returns the length and the part of the longest beginning of a text that is a
// piece; 0 if there is none.
func (p *pieces) prefix(r *reading, doc data.Document) (n int64, part task.Part) {
	h, at := uint64(pieceBasis), int64(0)
	for block := range r.blocks(doc) {
		for i := range len(block) {
			h = addByte(h, block[i])
			if sum := h | 1; p.likely[sum>>48] && p.parts[sum] != "" {
				n, part = at+int64(i)+1, p.parts[sum]
			}
		}
		at += int64(len(block))
	}
	return n, part
}

// ownLine is the number of characters from which on a line is recognised even if the
// lines around it are not: shorter ones, such as "return nil", may be anywhere.
const ownLine = 40

// told is a line that tells where a text is from, and the lines after it that do not.
type told struct {
	in   []task.Part // the parts that have the line
	long bool        // it is recognised by itself
	n    int64       // bytes of all
}

// divideLines divides a text between lines. A line that no part has is for the test;
// one that a single part has belongs to that, if a line beside it does too. Others,
// such as blank lines, and those that are not remembered, go with the line before them.
func (p *pieces) divideLines(r *reading, doc data.Document, use func(part task.Part, n int64)) {
	var before, last task.Part // of the line before; the last that any line may be of
	first := int64(0)          // bytes before the first line that has a part
	pass := func(part task.Part, n int64) {
		if part != "" && before == "" && first > 0 {
			use(part, first)
		}
		if part != "" {
			before = part
		}
		if before == "" {
			first += n
		} else {
			use(before, n)
		}
	}
	var previous, current *told
	ended := false // the text ends with a line end
	for line := range shortLines(lines(r.blocks(doc))) {
		n := int64(len(line))
		ended = line[n-1] == '\n'
		sum := lineSum(line)
		if isBlank(line) || bits.LeadingZeros64(sum) < p.zeros {
			if current == nil {
				pass("", n)
			} else {
				current.n += n
			}
			continue
		}
		next := &told{long: utf8.RuneCountInString(line) >= ownLine, n: n}
		for _, part := range parts {
			if p.Has(part, sum) {
				next.in, last = append(next.in, part), part
			}
		}
		if current != nil {
			pass(current.part(previous, next, ended), current.n)
		}
		previous, current = current, next
	}
	if current != nil {
		pass(current.part(previous, nil, ended), current.n)
	}
	if before == "" && first > 0 {
		use(cmp.Or(last, task.Test), first)
	}
}

// part returns the part of a line by the lines beside it, of which the first has none
// before it, and the last none after it; "" if it does not tell. ended says that the text ends with a line end.
func (l *told) part(before, after *told, ended bool) task.Part {
	has := func(other *told) bool { return other != nil && len(other.in) > 0 }
	beside := func(other *told) bool { return other != nil && slices.Contains(other.in, l.in[0]) }
	switch {
	case len(l.in) == 0 && before == nil && has(after),
		len(l.in) == 0 && after == nil && has(before) && !ended:
		// the rest of a line where a known text was cut
	case len(l.in) == 0:
		return task.Test
	case len(l.in) == 1 && (before == nil && after == nil || l.long || beside(before) || beside(after)):
		return l.in[0]
	}
	return ""
}

func isBlank(line string) bool { return strings.TrimSpace(line) == "" }

func lineSum(line string) uint64 { return task.Sum(line) &^ 1 }

// pieceSum returns the hash of a piece: FNV-1a, which grows by one byte at a time.
func pieceSum(text string) uint64 { return addBytes(pieceBasis, text) | 1 }

const (
	pieceBasis = 0xcbf29ce484222325
	piecePrime = 0x100000001b3
)

func addBytes(h uint64, text string) uint64 {
	for i := range len(text) {
		h = addByte(h, text[i])
	}
	return h
}

// addByte adds a byte to the hash of a piece. Line ends may be LF or CRLF.
func addByte(h uint64, b byte) uint64 {
	if b == '\r' {
		return h
	}
	return (h ^ uint64(b)) * piecePrime
}
