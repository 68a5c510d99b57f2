package text

import (
	"unicode/utf8"
)

// span is a range of bytes [from, to).
type span struct{ from, to int }

// piece is a range of a flow's text: a word for the model, or a recognised
// added token.
type piece struct {
	span
	id int32 // of the added token, or notAdded
}

const notAdded = -1

// flow is a text on its way through the steps of a tokenizer: normalizers
// rewrite it, splitters cut it into pieces. If traced, it records the origin of
// each byte.
type flow struct {
	text   []byte
	pieces []piece
	traced bool
	origin []span // of each byte of text; nil while text is unchanged
	start  int    // position of text in the input
	head   int    // length of what the input's first character has become
	limit  int    // maximum length of text, beyond which put does nothing

	// The result so far of the current rewrite or cut.
	newText   []byte
	newOrigin []span
	newPieces []piece
	newHead   int
	matches   []span // of a pattern in one piece
}

// step is a normalizer, which sees one piece, or a splitter. Both work piece by
// piece and leave added tokens unchanged.
type step func(f *flow)

// growth bounds the length of a normalized text, as a factor on the input's
// length, plus a constant. Unicode's longest compatibility form needs a factor
// of 11; a hostile tokenizer file could ask for any length.
const growth, growthRoom = 64, 1 << 20

// begins reports whether a piece begins with the input's first character, or with
// a part of what that has become.
func (f *flow) begins(p span) bool { return f.start == 0 && p.from < f.head }

// reset starts with a text that begins at start in the input. Bytes that are
// not UTF-8 become U+FFFD, one each.
func (f *flow) reset(s string, start int, traced bool) {
	f.text = append(f.text[:0], s...)
	f.origin, f.start, f.traced = f.origin[:0], start, traced
	_, f.head = utf8.DecodeRuneInString(s)
	f.limit = growth*len(s) + growthRoom
	f.pieces = append(f.pieces[:0], piece{span{0, len(s)}, notAdded})
	if !utf8.ValidString(s) {
		f.rewrite(func(p span) {
			for i := p.from; i < p.to; {
				r, n := utf8.DecodeRune(f.text[i:p.to])
				if r == utf8.RuneError && n == 1 {
					f.put(string(utf8.RuneError), i, i+1)
				} else {
					f.keep(i, i+n)
				}
				i += n
			}
		})
	}
}

// rewrite builds the text anew: fn is called for each piece in turn and calls
// keep and put for its replacement.
func (f *flow) rewrite(fn func(p span)) {
	f.newText, f.newPieces, f.newOrigin, f.newHead = f.newText[:0], f.newPieces[:0], f.newOrigin[:0], 0
	for _, p := range f.pieces {
		at := len(f.newText)
		if p.id != notAdded {
			f.keep(p.from, p.to)
		} else {
			fn(p.span)
		}
		f.newPieces = append(f.newPieces, piece{span{at, len(f.newText)}, p.id})
	}
	f.text, f.newText = f.newText, f.text
	f.pieces, f.newPieces = f.newPieces, f.pieces
	f.origin, f.newOrigin = f.newOrigin, f.origin
	f.head = f.newHead
}

// keep copies the bytes i to j of the text.
func (f *flow) keep(i, j int) {
	if len(f.newText) == f.newHead {
		f.newHead += max(0, min(j, f.head)-i)
	}
	f.newText = append(f.newText, f.text[i:j]...)
	if f.traced {
		for ; i < j; i++ {
			f.newOrigin = append(f.newOrigin, f.source(i, i+1))
		}
	}
}

// put replaces the bytes i to j of the text by s; for an insertion i equals j.
func (f *flow) put(s string, i, j int) {
	if len(f.newText) > f.limit {
		return
	}
	if len(f.newText) == f.newHead && i < f.head {
		f.newHead += len(s)
	}
	f.newText = append(f.newText, s...)
	if f.traced {
		from := f.source(i, j)
		for range len(s) {
			f.newOrigin = append(f.newOrigin, from)
		}
	}
}

// unput removes the last n bytes that keep and put wrote.
func (f *flow) unput(n int) {
	f.newText = f.newText[:len(f.newText)-n]
	if f.traced {
		f.newOrigin = f.newOrigin[:len(f.newOrigin)-n]
	}
}

// source returns the origin of the bytes i to j.
func (f *flow) source(i, j int) span {
	if len(f.origin) == 0 {
		return span{f.start + i, f.start + j}
	}
	if i == j {
		if i < len(f.origin) {
			return span{f.origin[i].from, f.origin[i].from}
		}
		last := f.origin[len(f.origin)-1].to
		return span{last, last}
	}
	return span{f.origin[i].from, f.origin[j-1].to}
}

// cut divides the pieces: fn is called for each in turn and calls add for its
// parts.
func (f *flow) cut(fn func(p span)) {
	f.newPieces = f.newPieces[:0]
	for _, p := range f.pieces {
		if p.id != notAdded {
			f.newPieces = append(f.newPieces, p)
		} else {
			fn(p.span)
		}
	}
	f.pieces, f.newPieces = f.newPieces, f.pieces
}

// add makes a piece of the bytes i to j, unless the range is empty.
func (f *flow) add(i, j int) {
	if i < j {
		f.newPieces = append(f.newPieces, piece{span{i, j}, notAdded})
	}
}
