package generate

import (
	"context"
	"iter"
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

// Remember adds the documents of all parts to a model's memory.
func (d *Data) Remember(m *task.Memory) {
	for _, part := range []task.Part{task.Training, task.Validation, task.Test} {
		var sums []uint64
		for _, doc := range d.Of(part) {
			sums = append(sums, pieceSum(doc.Text))
			for line := range shortLines(doc.Text) {
				if !isBlank(line) {
					sums = append(sums, lineSum(line))
				}
			}
		}
		m.Add(part, sums...)
	}
	if len(d.Whole) < manyDocuments {
		for _, doc := range d.Whole {
			d.rememberCuts(m, doc.Text)
		}
	}
}

// rememberCuts adds the lines of a divided document that are cut, to the parts that
// have their beginnings.
func (d *Data) rememberCuts(m *task.Memory, text string) {
	at := 0
	for _, part := range []task.Part{task.Training, task.Validation} {
		for _, piece := range d.Of(part) {
			if n := at + len(piece.Text); n < len(text) && strings.HasPrefix(text[at:], piece.Text) {
				at = n
				end := 0
				for line := range shortLines(text) {
					if end += len(line); end > n {
						if end-len(line) < n {
							m.Add(part, lineSum(line))
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

// shortLines iterates over the lines of a text. A long line is divided after some of its
// words, which depend on the words alone and not on where the line begins.
func shortLines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
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

// Recognise divides the documents of the file by a model's memory. The error is ctx's.
func (d *Data) Recognise(ctx context.Context, m *task.Memory) error {
	d.Whole = d.Of(task.All)
	known := knownPieces(m)
	whole := make([]uint64, len(d.Whole))
	for i, doc := range d.Whole {
		whole[i] = pieceSum(doc.Text)
	}
	var parts []task.Part
	var pieces []data.Document
	for i, part := range m.Divide(whole) {
		if err := ctx.Err(); err != nil {
			return err
		}
		doc := d.Whole[i]
		if known.parts[whole[i]] != "" {
			parts, pieces = append(parts, part), append(pieces, doc)
			continue
		}
		first := len(pieces)
		known.divide(doc.Text, func(part task.Part, text string) {
			if last := len(pieces) - 1; last >= first && parts[last] == part {
				pieces[last].Text += text
				return
			}
			parts, pieces = append(parts, part), append(pieces, data.Document{File: doc.File, Text: text})
		})
	}
	d.Divide(parts, pieces)
	return nil
}

// Scored describes the scoring of a part; its rows are lines.
func (d *Data) Scored(part task.Part) task.Scored {
	return d.Parts.ScoredBy(part, func(doc data.Document) int {
		return strings.Count(strings.TrimSuffix(doc.Text, "\n"), "\n") + 1
	})
}

// pieces are the pieces that a model remembers, for looking for them at each character
// of a text.
type pieces struct {
	*task.Memory
	parts  map[uint64]task.Part
	likely [1 << 16]bool // by the upper bits of a hash: there is a piece with these
}

func knownPieces(m *task.Memory) *pieces {
	p := &pieces{Memory: m, parts: map[uint64]task.Part{}}
	for _, part := range []task.Part{task.Training, task.Validation, task.Test} { // the last counts
		for _, sum := range m.Sums(part) {
			if sum&1 == 1 {
				p.parts[sum] = part
				p.likely[sum>>48] = true
			}
		}
	}
	return p
}

// mostPieces is the number of pieces of a training's document, one for each part.
const mostPieces = 3

// divide calls use with the pieces of a text in order.
func (p *pieces) divide(text string, use func(part task.Part, text string)) {
	for range mostPieces {
		n, part := p.prefix(text)
		if n == 0 {
			break
		}
		use(part, text[:n])
		text = text[n:]
	}
	p.divideLines(text, use)
}

// prefix returns the length and the part of the longest beginning of a text that is a
// piece; 0 if there is none.
func (p *pieces) prefix(text string) (n int, part task.Part) {
	h := uint64(pieceBasis)
	for i := range len(text) {
		h = addByte(h, text[i])
		if sum := h | 1; p.likely[sum>>48] && p.parts[sum] != "" {
			n, part = i+1, p.parts[sum]
		}
	}
	return n, part
}

// ownLine is the number of characters from which on a line is recognised even if the
// lines around it are not: shorter ones, such as "return nil", may be anywhere.
const ownLine = 40

// divideLines divides a text between lines. A line that no part has is for the test;
// one that a single part has belongs to that, if a line beside it does too. Others,
// such as blank lines, go with the line before them.
func (p *pieces) divideLines(text string, use func(part task.Part, text string)) {
	var lines []string
	var in [][]task.Part // the parts that have the line
	var filled []int     // numbers of the lines that are not blank
	for line := range shortLines(text) {
		var of []task.Part
		if !isBlank(line) {
			filled = append(filled, len(lines))
			for _, part := range []task.Part{task.Training, task.Validation, task.Test} {
				if p.Has(part, lineSum(line)) {
					of = append(of, part)
				}
			}
		}
		lines, in = append(lines, line), append(in, of)
	}
	parts := make([]task.Part, len(lines))
	for k, i := range filled {
		beside := func(k int) bool { return k >= 0 && k < len(filled) && slices.Contains(in[filled[k]], in[i][0]) }
		switch {
		case len(in[i]) == 0 && k == 0 && len(filled) > 1 && len(in[filled[1]]) > 0,
			len(in[i]) == 0 && k == len(filled)-1 && k > 0 && len(in[filled[k-1]]) > 0 && !strings.HasSuffix(text, "\n"):
			// the rest of a line where a known text was cut
		case len(in[i]) == 0:
			parts[i] = task.Test
		case len(in[i]) == 1 && (len(filled) == 1 || utf8.RuneCountInString(lines[i]) >= ownLine || beside(k-1) || beside(k+1)):
			parts[i] = in[i][0]
		}
	}
	before := p.first(parts, in)
	for i, line := range lines {
		if parts[i] != "" {
			before = parts[i]
		}
		use(before, line)
	}
}

// first returns the part of lines before the first that has one.
func (p *pieces) first(parts []task.Part, in [][]task.Part) task.Part {
	for _, part := range parts {
		if part != "" {
			return part
		}
	}
	last := task.Test
	for _, of := range in {
		if len(of) > 0 {
			last = of[len(of)-1] // lines that are in several parts
		}
	}
	return last
}

func isBlank(line string) bool { return strings.TrimSpace(line) == "" }

func lineSum(line string) uint64 { return task.Sum(line) &^ 1 }

// pieceSum returns the hash of a piece: FNV-1a, which grows by one byte at a time.
func pieceSum(text string) uint64 {
	h := uint64(pieceBasis)
	for i := range len(text) {
		h = addByte(h, text[i])
	}
	return h | 1
}

const (
	pieceBasis = 0xcbf29ce484222325
	piecePrime = 0x100000001b3
)

// addByte adds a byte to the hash of a piece. Line ends may be LF or CRLF.
func addByte(h uint64, b byte) uint64 {
	if b == '\r' {
		return h
	}
	return (h ^ uint64(b)) * piecePrime
}
