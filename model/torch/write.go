package torch

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// Save writes the parameters of slab as a state_dict; it returns the errors of
// [Write].
func Save(path string, slab *tensor.Slab) error { return Write(path, model.SlabTensors(slab)) }

// Write writes tensors as a state_dict that torch.load reads, with weights_only
// or without: the zip format, an OrderedDict of contiguous float32 and int64
// tensors in the order given. The file is replaced atomically, and equal
// tensors give equal bytes. A name that is empty or used twice, data that does
// not fit its Dims, or a failure to write is an error, and the previous file is
// kept.
func Write(path string, ts []model.Tensor) error {
	if _, err := model.NewFile(path, ts, nil); err != nil {
		return err
	}
	for _, t := range ts {
		if t.Name == "" || !utf8.ValidString(t.Name) {
			return fmt.Errorf("%s: not written: tensor name %q is empty or not UTF-8", path, t.Name)
		}
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error { return encode(w, ts) })
}

// encode writes the archive. Like PyTorch it aligns each member's bytes to a
// multiple of 64, so that torch.load may map them.
func encode(w io.Writer, ts []model.Tensor) error {
	z := &archive{n: &counter{w: w}}
	z.w = zip.NewWriter(z.n)
	z.add("archive/data.pkl", bytesOf(pickleState(ts)))
	z.add("archive/byteorder", bytesOf([]byte("little")))
	for i := range ts {
		z.add("archive/data/"+strconv.Itoa(i), func(w io.Writer) error { return writeValues(w, &ts[i]) })
	}
	z.add("archive/version", bytesOf([]byte("3\n")))
	if z.err != nil {
		return z.err
	}
	return z.w.Close()
}

func bytesOf(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

// archive is a zip writer whose members have their sizes and checksums in
// front, which requires writing each member twice, the first time to nowhere.
type archive struct {
	w   *zip.Writer
	n   *counter
	err error
}

// counter counts the bytes written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func (z *archive) add(name string, write func(io.Writer) error) {
	if z.err != nil {
		return
	}
	sum := crc32.NewIEEE()
	size := &counter{w: sum}
	if z.err = write(size); z.err != nil {
		return
	}
	if z.err = z.w.Flush(); z.err != nil {
		return
	}
	h := &zip.FileHeader{
		Name: name, Method: zip.Store, CRC32: sum.Sum32(),
		CompressedSize64: uint64(size.n), UncompressedSize64: uint64(size.n),
	}
	const local, extra = 30, 4 // bytes of the local header, and of an extra field's
	pad := (64 - (z.n.n+local+int64(len(name))+extra)%64) % 64
	h.Extra = append([]byte("FB"), byte(pad), 0)
	h.Extra = append(h.Extra, make([]byte, pad)...)
	var w io.Writer
	if w, z.err = z.w.CreateRaw(h); z.err == nil {
		z.err = write(w)
	}
}

func writeValues(w io.Writer, t *model.Tensor) error {
	const piece = 4096 // values
	le := binary.LittleEndian
	buf := make([]byte, 0, 8*piece)
	for lo := 0; lo < max(len(t.Data), len(t.Ints)); lo += piece {
		buf = buf[:0]
		if t.Ints != nil {
			for _, v := range t.Ints[lo:min(lo+piece, len(t.Ints))] {
				buf = le.AppendUint64(buf, uint64(v))
			}
		} else {
			for _, v := range t.Data[lo:min(lo+piece, len(t.Data))] {
				buf = le.AppendUint32(buf, math.Float32bits(v))
			}
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// pickleState is the pickle, of protocol 2, of
//
//	OrderedDict([(name, _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())), ...])
//
// where a storage is the persistent id ("storage", class, key, "cpu", elements).
func pickleState(ts []model.Tensor) []byte {
	p := pickler("\x80\x02")
	p.dict()
	p = append(p, '(')
	for i, t := range ts {
		p.text(t.Name)
		p.global("torch._utils", "_rebuild_tensor_v2")
		p = append(p, "(("...)
		p.text("storage")
		class, n := "FloatStorage", len(t.Data)
		if t.Ints != nil {
			class, n = "LongStorage", len(t.Ints)
		}
		p.global("torch", class)
		p.text(strconv.Itoa(i))
		p.text("cpu")
		p.int(n)
		p = append(p, 't', 'Q')
		p.int(0)
		stride := make([]int, len(t.Dims))
		for j, step := len(t.Dims)-1, 1; j >= 0; j-- {
			stride[j] = step
			step *= max(t.Dims[j], 1)
		}
		p.ints(t.Dims)
		p.ints(stride)
		p = append(p, 0x89) // requires_grad: False
		p.dict()
		p = append(p, 't', 'R')
	}
	return append(p, 'u', '.')
}

type pickler []byte

func (p *pickler) global(module, name string) { *p = append(*p, "c"+module+"\n"+name+"\n"...) }

func (p *pickler) dict() {
	p.global("collections", "OrderedDict")
	*p = append(*p, ')', 'R')
}

func (p *pickler) text(s string) {
	*p = binary.LittleEndian.AppendUint32(append(*p, 'X'), uint32(len(s)))
	*p = append(*p, s...)
}

func (p *pickler) int(n int) {
	if n <= math.MaxInt32 {
		*p = binary.LittleEndian.AppendUint32(append(*p, 'J'), uint32(n))
		return
	}
	*p = binary.LittleEndian.AppendUint64(append(*p, 0x8a, 8), uint64(n)) // LONG1
}

func (p *pickler) ints(ns []int) {
	*p = append(*p, '(')
	for _, n := range ns {
		p.int(n)
	}
	*p = append(*p, 't')
}
