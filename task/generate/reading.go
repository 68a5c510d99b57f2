package generate

import (
	"context"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
)

// inMemory is the number of bytes of text that are held in memory; the rest stays in its
// files, and its tokens are put into a file.
var inMemory = int64(256 << 20)

// blockSize is the number of bytes that a tokenizer reads at once; blocks of a
// text without line ends may be four times as long.
const blockSize = 1 << 20

// blocks divides a text after line ends, so that tokenizers need not read all of
// it at once.
func blocks(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s != "" {
			n := blockEnd(s)
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
	}
}

// blockEnd returns the length of the first block of a text. It depends on the first
// 4·blockSize+1 bytes alone.
func blockEnd[T string | []byte](s T) int {
	if len(s) <= blockSize {
		return len(s)
	}
	cut := min(4*blockSize, len(s))
	for i := blockSize; i < cut; i++ {
		if s[i] == '\n' {
			return i + 1
		}
	}
	for cut < len(s) && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return cut
}

// reading reads documents, also those that stay in their files, in memory that does not
// depend on their size. After an error every text ends; err has it.
type reading struct {
	ctx        context.Context
	characters int   // of the blocks so far
	err        error // the first: a *data.InputError, or that of ctx
}

// fails notes an error, and reports whether there is one.
func (r *reading) fails(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return r.err != nil
}

// blocks iterates over the blocks of a document, which are those of its text.
func (r *reading) blocks(d data.Document) iter.Seq[string] {
	return func(yield func(string) bool) {
		for block := range r.parts(d) {
			if r.fails(r.ctx.Err()) {
				return
			}
			r.characters += utf8.RuneCountInString(block)
			if !yield(block) {
				return
			}
		}
	}
}

func (r *reading) parts(d data.Document) iter.Seq[string] {
	if !d.Stays() {
		return blocks(d.Text)
	}
	return func(yield func(string) bool) {
		in, err := d.Open()
		if r.fails(err) {
			return
		}
		defer in.Close()
		buffer, n := make([]byte, min(4*blockSize+1, d.Size())), 0
		for {
			more, err := io.ReadFull(in, buffer[n:])
			if n += more; err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				r.fails(err)
				return
			}
			if n == 0 {
				return
			}
			end := blockEnd(buffer[:n])
			if !yield(string(buffer[:end])) {
				return
			}
			n = copy(buffer, buffer[end:n])
		}
	}
}

// lines iterates over the lines of a text in blocks, each with its line end.
func lines(blocks iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		rest := ""
		for block := range blocks {
			if rest != "" {
				block = rest + block
			}
			for {
				n := strings.IndexByte(block, '\n') + 1
				if n == 0 {
					break
				}
				if !yield(block[:n]) {
					return
				}
				block = block[n:]
			}
			rest = block
		}
		if rest != "" {
			yield(rest)
		}
	}
}

// texts iterates over the parts of the blocks of documents.
func (r *reading) texts(docs []data.Document, parts func(string) iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, d := range docs {
			for block := range r.blocks(d) {
				for s := range parts(block) {
					if !yield(s) {
						return
					}
				}
			}
		}
	}
}

// runes returns the bytes at which two characters of a document begin; its end, if it has
// fewer.
func (r *reading) runes(d data.Document, first, second int) (a, b int64) {
	at, n := int64(0), 0 // bytes and characters before the block
	a, b = d.Size(), d.Size()
	for block := range r.blocks(d) {
		count := utf8.RuneCountInString(block)
		for _, one := range []struct {
			character int
			to        *int64
		}{{first, &a}, {second, &b}} {
			if k := one.character - n; k >= 0 && k < count {
				*one.to = at + int64(runeOffset(block, k))
			}
		}
		if at, n = at+int64(len(block)), n+count; n > second {
			break
		}
	}
	return a, b
}

// runeOffset returns the byte at which character n of s begins.
func runeOffset(s string, n int) int {
	for i := range s {
		if n--; n < 0 {
			return i
		}
	}
	return len(s)
}

// measure returns the number of characters of documents, and whether a mark occurs in them.
func measure(ctx context.Context, docs []data.Document, mark string) (characters int, marked bool, err error) {
	r := &reading{ctx: ctx}
	for _, d := range docs {
		end := "" // of the block before: the mark may lie across two
		for block := range r.blocks(d) {
			marked = marked || strings.Contains(block, mark) || strings.Contains(end+block[:min(len(block), len(mark))], mark)
			end = block[max(0, len(block)-len(mark)):]
		}
	}
	return r.characters, marked, r.err
}
