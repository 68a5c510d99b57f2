package transcribe

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// Lexicon is the words that texts may consist of. It is safe for concurrent use.
type Lexicon struct {
	root  *lexNode
	words int
	note  string // what was unusual about the lines of its file, or ""
}

// maxWord is the size limit of a word of a file, in bytes. A node of the tree takes
// 200 bytes.
const maxWord = 1000

// lexNode is a node of a prefix tree of words.
type lexNode struct {
	next map[rune]*lexNode
	word bool // a word ends here
}

// NewLexicon returns a lexicon of words. Empty words are ignored.
func NewLexicon(words []string) *Lexicon {
	l := &Lexicon{root: &lexNode{}}
	for _, w := range words {
		n := l.root
		for _, r := range w {
			if n.next == nil {
				n.next = map[rune]*lexNode{}
			}
			if n.next[r] == nil {
				n.next[r] = &lexNode{}
			}
			n = n.next[r]
		}
		if n != l.root && !n.word {
			n.word = true
			l.words++
		}
	}
	return l
}

// ReadLexicon reads a file of words, plain or gzipped: the first field of each
// line, as in pronouncing dictionaries. A number in parentheses after a word, as
// in WORD(2), is removed; lines that begin with ;;; or # are comments. Words are
// compared with texts exactly, including case. A file that cannot be read, has
// no words or one of more than 1000 bytes is a *data.InputError; a cancelled ctx returns its error.
func ReadLexicon(ctx context.Context, path string) (*Lexicon, error) {
	r, err := data.OpenLines(path, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	l, err := readLexicon(r, ctx.Err)
	if err == nil {
		l.note = r.Note()
	}
	return l, err
}

// readLexicon reads the words; stop returns the error with which reading is to
// end, or nil.
func readLexicon(r *data.LineReader, stop func() error) (*Lexicon, error) {
	defer r.Close()
	var words []string
	for {
		if r.Line%checkEvery == 0 {
			if err := stop(); err != nil {
				return nil, err
			}
		}
		line, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, ";;;") || strings.HasPrefix(line, "#") {
			continue
		}
		word := fields[0]
		if i := strings.LastIndexByte(word, '('); i > 0 && strings.HasSuffix(word, ")") && strings.Trim(word[i+1:len(word)-1], "0123456789") == "" {
			word = word[:i]
		}
		if len(word) > maxWord {
			return nil, &data.InputError{File: r.File, Line: r.Line, Problem: fmt.Sprintf("has a word of %d bytes, expected at most %d", len(word), maxWord), Fix: "write one word per line"}
		}
		words = append(words, word)
	}
	l := NewLexicon(words)
	if l.words == 0 {
		return nil, &data.InputError{File: r.File, Problem: "holds no word", Fix: "write one per line"}
	}
	return l, nil
}

// Note returns what was unusual about the lines of the lexicon's file, or "".
func (l *Lexicon) Note() string { return l.note }

// Words returns the number of words.
func (l *Lexicon) Words() int { return l.words }

// spelled reports whether the alphabet has the tokens of one of the words below
// n, the node of beginning.
func (n *lexNode) spelled(a *alphabet, beginning string) bool {
	if n.word {
		if _, unknown := a.encode(beginning); unknown == nil {
			return true
		}
	}
	for r, next := range n.next {
		if (a.tokenizer != nil || a.index[string(r)] > 0) && next.spelled(a, beginning+string(r)) {
			return true
		}
	}
	return false
}

// follow returns the node after a text, from n; nil if no word continues so.
func (n *lexNode) follow(text string) *lexNode {
	for _, r := range text {
		if n = n.next[r]; n == nil {
			return nil
		}
	}
	return n
}
