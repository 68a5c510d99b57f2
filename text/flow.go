package text

import (
	"unicode/utf8"
)

// span is a range of bytes [from, to).
type span struct{ from, to int }

// piece is a range of a flow's text: a word for the model, or an added token
// that was recognised whole.
type piece struct {
	span
	id int32 // of the added token, or notAdded
}

const notAdded = -1

// flow is a text on its way through the steps of a tokenizer: normalizers
// rewrite it, splitters cut it into pieces. If traced, it knows for each byte
// where it came from.
type flow struct {
	text   []byte
	pieces []piece
	traced bool
	origin []span // of each byte of text; nil while text is still as it was given
	start  int    // where text began in what was given
	limit  int    // of the length of text, beyond which put does nothing

	// What the rewriting or cutting under way has made so far.
	newText   []byte
	newOrigin []span
	newPieces []piece
}

// step is a normalizer, which sees one piece, or a splitter. Each does its work
// piece by piece and leaves added tokens alone.
type step func(f *flow)

// growth is how many times as long as the text that was given a text may become,
// beside a fixed room. Unicode's longest compatibility form needs 11 times; a
// hostile file of a tokenizer could ask for any length.
const growth, growthRoom = 64, 1 << 20

// reset begins with a text that stood at start in what was given. Bytes that
// are not UTF-8 become U+FFFD, one each.
func (f *flow) reset(s string, start int, traced bool) {
	f.text = append(f.text[:0], s...)
	f.origin, f.start, f.traced = f.origin[:0], start, traced
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

// rewrite makes the text anew: fn is called for each piece in turn and calls
// keep and put for what shall stand in its place.
func (f *flow) rewrite(fn func(p span)) {
	f.newText, f.newPieces, f.newOrigin = f.newText[:0], f.newPieces[:0], f.newOrigin[:0]
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
}

// keep carries the bytes i to j of the text over.
func (f *flow) keep(i, j int) {
	f.newText = append(f.newText, f.text[i:j]...)
	if f.traced {
		for ; i < j; i++ {
			f.newOrigin = append(f.newOrigin, f.source(i, i+1))
		}
	}
}

// put lets s stand for the bytes i to j of the text, none of them when s is put in.
func (f *flow) put(s string, i, j int) {
	if len(f.newText) > f.limit {
		return
	}
	f.newText = append(f.newText, s...)
	if f.traced {
		from := f.source(i, j)
		for range len(s) {
			f.newOrigin = append(f.newOrigin, from)
		}
	}
}

// unput takes the last n bytes that keep and put made back.
func (f *flow) unput(n int) {
	f.newText = f.newText[:len(f.newText)-n]
	if f.traced {
		f.newOrigin = f.newOrigin[:len(f.newOrigin)-n]
	}
}

// source is where the bytes i to j came from.
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

// cut divides the pieces: fn is called for each in turn and calls add for its parts.
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

// add makes a piece of the bytes i to j, unless there are none.
func (f *flow) add(i, j int) {
	if i < j {
		f.newPieces = append(f.newPieces, piece{span{i, j}, notAdded})
	}
}
