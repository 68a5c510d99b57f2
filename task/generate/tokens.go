package generate

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/lock"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/train"
)

// corpus is documents as tokens. Each begins with the token for the beginning of
// a text and ends with that for the end: step i of a document reads token i and
// predicts token i+1. The tokens are in memory, or in a file if the text of a document
// stays in its file.
//
// They are read by ReadAt and not through a mapping: a failing disk or a file cut short
// is then an error and not a signal, pages that were read do not count as this process's
// memory, and the few hundred bytes of a row's segment cost a microsecond either way.
type corpus struct {
	tokenized
	docs []span
	at   io.ReaderAt // the tokens, Width bytes each, little-endian
	path string      // of the file, if it is kept
}

// tokenized is what is known of a corpus besides its tokens.
type tokenized struct {
	Lengths    []int   // of the documents, in tokens
	Tokens     int     // without those for beginnings and ends
	Characters int     // of the texts
	Counts     []int64 // by token, how often it is a target
	Width      int     // bytes of a token: 2, or 4 for a large vocabulary
	Sum        string  // hash of the tokens, as that of train.Fingerprint.AddData
}

// span is the tokens of a document.
type span struct{ from, to int }

// steps returns the number of predictions.
func (s span) steps() int { return s.to - s.from - 1 }

// newCorpus encodes documents; with scored without the tokens for their ends, which are not
// scored. A file of tokens is temporary, or, unless keep is "", one in that directory,
// where it is found again. Errors are a *data.InputError for a text that cannot be read,
// that of a cancelled ctx, and those of the file.
func newCorpus(ctx context.Context, k *codec, docs []data.Document, scored bool, keep string) (*corpus, error) {
	encode := func(to io.Writer) (tokenized, error) {
		w := newCorpusWriter(to, k.tokens.Vocabulary().Len())
		err := w.encode(ctx, k, docs, scored)
		return w.tokenized, err
	}
	if !slices.ContainsFunc(docs, data.Document.Stays) {
		var b bytes.Buffer
		t, err := encode(&b)
		if err != nil {
			return nil, err
		}
		return t.corpus(bytes.NewReader(b.Bytes()), ""), nil
	}
	if keep != "" {
		return keptCorpus(ctx, filepath.Join(keep, k.stamp(docs)+".tokens"), encode)
	}
	f, err := temporary()
	if err != nil {
		return nil, err
	}
	to := bufio.NewWriterSize(f, 1<<20)
	t, err := encode(to)
	if err = cmp.Or(err, to.Flush()); err != nil {
		discard(f)
		return nil, err
	}
	return t.corpus(f, ""), nil
}

// keptCorpus returns the corpus in a file, which it writes unless it is there. Of several
// processes that want it, such as the ranks of one machine, one writes it.
func keptCorpus(ctx context.Context, path string, encode func(io.Writer) (tokenized, error)) (*corpus, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	unlock, err := lock.Acquire(path + ".lock")
	for errors.Is(err, lock.ErrHeld) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
			unlock, err = lock.Acquire(path + ".lock")
		}
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if c, err := openCorpus(path); err == nil {
		return c, nil
	}
	model.SweepTemporaries(path)
	var failed error // without what WriteFileAtomic says of it
	err = model.WriteFileAtomic(path, func(to io.Writer) error {
		var t tokenized
		if t, failed = encode(to); failed != nil {
			return failed
		}
		return t.writeAbout(to)
	})
	if err != nil {
		return nil, cmp.Or(failed, err)
	}
	return openCorpus(path)
}

// corpusOf is texts that are tokens already.
func corpusOf(texts ...[]int32) *corpus {
	var b bytes.Buffer
	w := newCorpusWriter(&b, 0)
	for _, ids := range texts {
		w.begin()
		_ = w.add(ids) // to memory
	}
	return w.corpus(bytes.NewReader(b.Bytes()), "")
}

// corpus returns the corpus whose tokens are in a file or in memory; path is that of a
// file that is kept.
func (t *tokenized) corpus(at io.ReaderAt, path string) *corpus {
	c := &corpus{tokenized: *t, at: at, path: path}
	n := 0
	for _, length := range t.Lengths {
		c.docs = append(c.docs, span{n, n + length})
		n += length
	}
	return c
}

// read fills dst with the tokens from one on; raw is memory for it.
func (c *corpus) read(dst []int32, from int, raw *[]byte) error {
	*raw = train.Resize(*raw, len(dst)*c.Width)
	if _, err := c.at.ReadAt(*raw, int64(from)*int64(c.Width)); err != nil {
		return fmt.Errorf("the tokens of the text cannot be read: %w", err)
	}
	for i := range dst {
		if c.Width == 2 {
			dst[i] = int32(binary.LittleEndian.Uint16((*raw)[2*i:]))
		} else {
			dst[i] = int32(binary.LittleEndian.Uint32((*raw)[4*i:]))
		}
	}
	return nil
}

// close ends the use of the corpus. A file that is kept is removed, with the directories
// that were made for it, unless it is to be found again.
func (c *corpus) close(again bool) {
	f, ok := c.at.(*os.File)
	switch {
	case !ok:
	case c.path == "":
		discard(f)
	default:
		f.Close()
		if dir := filepath.Dir(c.path); !again {
			_ = os.RemoveAll(dir)            // other ranks may remove it, too
			_ = os.Remove(filepath.Dir(dir)) // the run's, if this rank alone uses it here, and it is empty
		}
	}
}

// temporary creates a file that has no name, or gets none when it is discarded: not every
// system removes one that is open.
func temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "carousel-*")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name())
	return f, nil
}

func discard(f *os.File) {
	f.Close()
	_ = os.Remove(f.Name())
}

// tokensMagic ends a file of tokens. Before it are, after the tokens, what is known of the
// corpus, as JSON, the SHA-256 of that, and its length, 8 bytes, little-endian.
const tokensMagic = "tokens 1"

func (t *tokenized) writeAbout(to io.Writer) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	end := binary.LittleEndian.AppendUint64(sum[:], uint64(len(text)))
	_, err = to.Write(append(append(text, end...), tokensMagic...))
	return err
}

// openCorpus opens a file of tokens, and checks its hashes.
func openCorpus(path string) (_ *corpus, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	end := make([]byte, sha256.Size+8+len(tokensMagic))
	at := info.Size() - int64(len(end))
	if _, err := f.ReadAt(end, at); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(end[sha256.Size:])
	if string(end[sha256.Size+8:]) != tokensMagic || n > uint64(min(at, mostAbout)) {
		return nil, errDamaged
	}
	text := make([]byte, n)
	if _, err := f.ReadAt(text, at-int64(n)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); !bytes.Equal(sum[:], end[:sha256.Size]) {
		return nil, errDamaged
	}
	var t tokenized
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, err
	}
	c := t.corpus(f, path)
	sum, err := c.sum()
	if err == nil && sum != t.Sum {
		err = errDamaged
	}
	return c, err
}

// mostAbout bounds what openCorpus reads into memory.
const mostAbout = 1 << 30

var errDamaged = errors.New("is not a file of tokens, or damaged")

// sum computes the hash of the tokens.
func (c *corpus) sum() (string, error) {
	var raw []byte
	ids, h := make([]int32, 1<<16), newHash()
	for _, d := range c.docs {
		for at := d.from; at < d.to; at += len(ids) {
			some := ids[:min(len(ids), d.to-at)]
			if err := c.read(some, at, &raw); err != nil {
				return "", err
			}
			h.add(some)
		}
	}
	return h.sum(), nil
}

// tokenHash computes the hash of tokens that train.Fingerprint.AddData computes.
type tokenHash struct {
	hash.Hash
	raw []byte
}

func newHash() *tokenHash { return &tokenHash{Hash: sha256.New()} }

func (h *tokenHash) add(ids []int32) {
	h.raw = h.raw[:0]
	for _, id := range ids {
		h.raw = binary.LittleEndian.AppendUint32(h.raw, uint32(id))
	}
	h.Write(h.raw)
}

func (h *tokenHash) sum() string { return hex.EncodeToString(h.Sum(nil)[:12]) }

// corpusWriter writes the tokens of a corpus, and collects what is known of them.
type corpusWriter struct {
	tokenized
	to   io.Writer
	hash *tokenHash
	raw  []byte
}

// newCorpusWriter returns a writer of tokens of a vocabulary; with 0 they are not counted.
func newCorpusWriter(to io.Writer, vocabulary int) *corpusWriter {
	w := &corpusWriter{to: to}
	if w.Width = 4; vocabulary > 0 {
		w.hash, w.Counts = newHash(), make([]int64, vocabulary)
		if vocabulary <= 1<<16 {
			w.Width = 2
		}
	}
	return w
}

// begin begins a document.
func (w *corpusWriter) begin() { w.Lengths = append(w.Lengths, 0) }

// add adds tokens to the document.
func (w *corpusWriter) add(ids []int32) error {
	n := &w.Lengths[len(w.Lengths)-1]
	if w.Counts != nil {
		w.hash.add(ids)
		for i, id := range ids {
			if *n+i > 0 {
				w.Counts[id]++
			}
		}
	}
	*n += len(ids)
	w.raw = w.raw[:0]
	for _, id := range ids {
		if w.Width == 2 {
			w.raw = binary.LittleEndian.AppendUint16(w.raw, uint16(id))
		} else {
			w.raw = binary.LittleEndian.AppendUint32(w.raw, uint32(id))
		}
	}
	_, err := w.to.Write(w.raw)
	return err
}

// encode adds documents.
func (w *corpusWriter) encode(ctx context.Context, k *codec, docs []data.Document, scored bool) error {
	const enough = 1 << 12 // tokens to be written at once
	r := &reading{ctx: ctx}
	var ids []int32
	for _, d := range docs {
		w.begin()
		ids = append(ids[:0], k.begin)
		for part, ends := range k.parts(r.blocks(d)) {
			if ids = k.tokens.Encode(ids, part); ends {
				ids = append(ids, k.line)
			}
			if len(ids) < enough {
				continue
			}
			if err := w.add(ids); err != nil {
				return err
			}
			ids = ids[:0]
		}
		if r.err != nil {
			return r.err
		}
		if !scored {
			ids = append(ids, k.end)
			w.Tokens--
		}
		if err := w.add(ids); err != nil {
			return err
		}
		w.Tokens += w.Lengths[len(w.Lengths)-1] - 1
	}
	w.Characters, w.Sum = r.characters, w.hash.sum()
	return nil
}

// stamp identifies the tokens of documents for as long as their files stay as they are.
func (k *codec) stamp(docs []data.Document) string {
	h := sha256.New()
	_ = k.tokens.Part("").Write(h)
	for _, d := range docs {
		fmt.Fprintf(h, "\n%d ", d.Size())
		io.WriteString(h, d.Stamp())
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// losses are -log p by the place of the token in a corpus: in memory, or in a temporary
// file if the corpus is in one.
type losses struct {
	memory []float32
	file   *os.File
	raw    []byte
}

func newLosses(c *corpus) (*losses, error) {
	if _, ok := c.at.(*os.File); ok {
		f, err := temporary()
		return &losses{file: f}, err
	}
	n := 0
	for _, length := range c.Lengths {
		n += length
	}
	return &losses{memory: make([]float32, n)}, nil
}

// put stores the losses of tokens from one on.
func (l *losses) put(at int, v []float32) error {
	if l.file == nil {
		copy(l.memory[at:], v)
		return nil
	}
	l.raw, _ = binary.Append(l.raw[:0], binary.LittleEndian, v) // float32 has no errors
	_, err := l.file.WriteAt(l.raw, 4*int64(at))
	return err
}

// get returns the losses of n tokens from one on, which are valid until the next call.
func (l *losses) get(at, n int) ([]float32, error) {
	if l.file == nil {
		return l.memory[at : at+n], nil
	}
	l.raw, l.memory = train.Resize(l.raw, 4*n), train.Resize(l.memory, n)
	if _, err := l.file.ReadAt(l.raw, 4*int64(at)); err != nil {
		return nil, err
	}
	for i := range l.memory {
		l.memory[i] = math.Float32frombits(binary.LittleEndian.Uint32(l.raw[4*i:]))
	}
	return l.memory, nil
}

func (l *losses) close() {
	if l.file != nil {
		discard(l.file)
	}
}
