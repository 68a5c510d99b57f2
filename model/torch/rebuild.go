package torch

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/internal/half"
)

// dtype is one of PyTorch's element types.
type dtype struct {
	name string // as torch.NAME
	size int    // bytes
	// One of the two decodes an element; the other is nil.
	float func(binary.ByteOrder, []byte) float64
	int   func(binary.ByteOrder, []byte) int64
	what  string // why tensors of it are not read, or ""
}

// dtypes by name, and by the class of storage that holds them.
var dtypes, storages = makeTypes()

func makeTypes() (byName, byClass map[string]*dtype) {
	byName, byClass = map[string]*dtype{}, map[string]*dtype{}
	add := func(class string, t *dtype) {
		byName["torch."+t.name] = t
		if class != "" {
			byClass["torch."+class+"Storage"] = t
		}
	}
	add("Float", &dtype{name: "float32", size: 4, float: func(o binary.ByteOrder, b []byte) float64 { return float64(math.Float32frombits(o.Uint32(b))) }})
	add("Double", &dtype{name: "float64", size: 8, float: func(o binary.ByteOrder, b []byte) float64 { return math.Float64frombits(o.Uint64(b)) }})
	add("Half", &dtype{name: "float16", size: 2, float: func(o binary.ByteOrder, b []byte) float64 { return float64(half.FromFloat16(o.Uint16(b))) }})
	add("BFloat16", &dtype{name: "bfloat16", size: 2, float: func(o binary.ByteOrder, b []byte) float64 { return float64(half.FromBFloat16(o.Uint16(b))) }})
	add("Long", &dtype{name: "int64", size: 8, int: func(o binary.ByteOrder, b []byte) int64 { return int64(o.Uint64(b)) }})
	add("Int", &dtype{name: "int32", size: 4, int: func(o binary.ByteOrder, b []byte) int64 { return int64(int32(o.Uint32(b))) }})
	add("Short", &dtype{name: "int16", size: 2, int: func(o binary.ByteOrder, b []byte) int64 { return int64(int16(o.Uint16(b))) }})
	add("Char", &dtype{name: "int8", size: 1, int: func(_ binary.ByteOrder, b []byte) int64 { return int64(int8(b[0])) }})
	add("Byte", &dtype{name: "uint8", size: 1, int: func(_ binary.ByteOrder, b []byte) int64 { return int64(b[0]) }})
	add("Bool", &dtype{name: "bool", size: 1, int: func(_ binary.ByteOrder, b []byte) int64 { return int64(b[0]) }})
	add("", &dtype{name: "uint16", size: 2, int: func(o binary.ByteOrder, b []byte) int64 { return int64(o.Uint16(b)) }})
	add("", &dtype{name: "uint32", size: 4, int: func(o binary.ByteOrder, b []byte) int64 { return int64(o.Uint32(b)) }})
	for class, size := range map[string]int{"ComplexHalf": 4, "ComplexFloat": 8, "ComplexDouble": 16} {
		add(class, &dtype{name: fmt.Sprintf("complex%d", 8*size), size: size, what: "complex"})
	}
	for class, size := range map[string]int{"QInt8": 1, "QUInt8": 1, "QInt32": 4} {
		add(class, &dtype{name: strings.ToLower(class), size: size, what: "quantized"})
	}
	// Bytes without a type: the tensors in it specify theirs.
	untyped := &dtype{name: "uint8", size: 1}
	byClass["torch.storage.UntypedStorage"], byClass["torch.UntypedStorage"] = untyped, untyped
	return byName, byClass
}

// The functions that apply implements.
const (
	orderedDict     = "collections.OrderedDict"
	rebuildTensor   = "torch._utils._rebuild_tensor"
	rebuildTensorV2 = "torch._utils._rebuild_tensor_v2"
	rebuildTensorV3 = "torch._utils._rebuild_tensor_v3"
	rebuildParam    = "torch._utils._rebuild_parameter"
	rebuildParamS   = "torch._utils._rebuild_parameter_with_state"
	torchSize       = "torch.Size"
	torchDevice     = "torch.device"
	codecsEncode    = "_codecs.encode"
	builtinSet      = "builtins.set"
	builtin2Set     = "__builtin__.set"
	builtinBytes    = "builtins.bytes"
	builtin2Bytes   = "__builtin__.bytes"
	restoreTypeTag  = "torch.jit._pickle.restore_type_tag"
)

// scriptLists are the typed lists of TorchScript.
var scriptLists = []string{"torch.jit._pickle.build_tensorlist", "torch.jit._pickle.build_intlist", "torch.jit._pickle.build_doublelist", "torch.jit._pickle.build_boollist", "torch.jit._pickle.build_tensor_from_id"}

// unread are the functions that make a tensor of a kind that is not read. Other
// values of such a kind need the names in unreadParts.
var unread = map[string]string{
	"torch._utils._rebuild_sparse_tensor":          "sparse",
	"torch._utils._rebuild_sparse_csr_tensor":      "sparse",
	"torch._utils._rebuild_nested_tensor":          "nested",
	"torch._utils._rebuild_meta_tensor_no_storage": "meta",
	"torch._utils._rebuild_qtensor":                "quantized",
	"torch.ScriptObject":                           "quantized",
}

var unreadParts = []string{"torch.serialization._get_layout", "torch.per_tensor_affine", "torch.per_channel_affine", "torch.per_channel_affine_float_qparams", "torch.per_tensor_symmetric", "torch.per_channel_symmetric"}

// instead is what to save in place of a tensor of such a kind.
var instead = map[string]string{
	"sparse":    "save its dense form, tensor.to_dense()",
	"nested":    "save its tensors one by one",
	"meta":      "it has no values: give the model its weights before it is saved",
	"quantized": "save the state_dict of the model before it is quantized",
	"complex":   "save its real and imaginary parts, torch.view_as_real(tensor)",
}

// globals are all the names that a pickle may use.
var globals = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		orderedDict, rebuildTensor, rebuildTensorV2, rebuildTensorV3, rebuildParam, rebuildParamS,
		torchSize, torchDevice, codecsEncode, builtinSet, builtin2Set, builtinBytes, builtin2Bytes,
	} {
		m[name] = true
	}
	for name := range dtypes {
		m[name] = true
	}
	for name := range storages {
		m[name] = true
	}
	for name := range unread {
		m[name] = true
	}
	for _, name := range append(slices.Concat(unreadParts, scriptLists), numpyReconstruct, numpyScalar, numpyFrombuffer, numpyArray, numpyDtype, restoreTypeTag) {
		m[name] = true
	}
	return m
}()

// storage is a block of a file that tensors are views of.
type storage struct {
	key   string
	dtype *dtype
	numel int64            // elements of dtype
	data  []byte           // of a NumPy array in the pickle; nil: elsewhere in the file
	order binary.ByteOrder // of a NumPy array; nil: the file's
}

func (s *storage) bytes() int64 { return s.numel * int64(s.dtype.size) }

// view is a tensor: a strided window on a storage. All counts are in elements.
type view struct {
	storage      *storage
	dtype        *dtype
	offset       int64
	size, stride []int64
	what         string // the kind of a tensor that is not read, such as sparse; then it has nothing else
}

// object is an object of a class of TorchScript; state is what BUILD gave it.
type object struct{ state any }

// apply returns the result of a known function for its arguments.
func (u *unpickler) apply(fn global, args tuple) any {
	switch fn {
	case orderedDict:
		return u.dictOf(args)
	case rebuildTensor, rebuildTensorV2, rebuildTensorV3:
		v, err := rebuild(fn, args)
		if err != nil {
			u.failf("%s before byte %d: %w", fn, u.at, err)
		}
		return v
	case rebuildParam, rebuildParamS:
		if len(args) > 0 {
			if v, ok := args[0].(*view); ok {
				return v
			}
		}
	case torchSize, builtinSet, builtin2Set, restoreTypeTag:
		if len(args) == 1 || fn == restoreTypeTag && len(args) == 2 {
			return args[0]
		}
	case torchDevice:
		return args
	case builtinBytes, builtin2Bytes: // how protocol 2 writes no bytes
		if len(args) == 0 {
			return []byte{}
		}
	case codecsEncode: // how protocol 2 writes bytes
		if len(args) == 2 {
			if s, ok := args[0].(string); ok && u.charge(len(s)) {
				if b, ok := latin1(s); ok {
					return b
				}
			}
		}
	}
	if what := unread[string(fn)]; what != "" {
		return &view{what: what}
	}
	if slices.Contains(unreadParts, string(fn)) || slices.Contains(scriptLists, string(fn)) {
		return tuple(nil)
	}
	if strings.HasPrefix(string(fn), scriptClasses) {
		return &object{}
	}
	if v, ok := u.numpy(fn, args); ok {
		return v
	}
	u.failf("%s before byte %d: unexpected arguments", fn, u.at)
	return nil
}

// dictOf makes an OrderedDict, empty or, as Python 2 wrote it, from a list of
// pairs.
func (u *unpickler) dictOf(args tuple) *dict {
	d := &dict{}
	if len(args) == 0 {
		return d
	}
	pairs, ok := args[0].(*list)
	if !ok || len(args) != 1 {
		u.failf("OrderedDict before byte %d: unexpected arguments", u.at)
		return d
	}
	for _, p := range pairs.items {
		switch p := p.(type) {
		case *list:
			d.set(u, p.items)
		case tuple:
			d.set(u, p)
		}
	}
	return d
}

// rebuild makes a tensor from the arguments (storage, offset, size, stride,
// requires_grad, hooks, dtype), of which older functions have fewer.
func rebuild(fn global, args tuple) (*view, error) {
	least := map[global]int{rebuildTensor: 4, rebuildTensorV2: 6, rebuildTensorV3: 7}[fn]
	if len(args) < least {
		return nil, fmt.Errorf("expected at least %d arguments, got %d", least, len(args))
	}
	s, ok := args[0].(*storage)
	if !ok {
		return nil, fmt.Errorf("its first argument is not a storage")
	}
	v := &view{storage: s, dtype: s.dtype}
	if fn == rebuildTensorV3 {
		name, _ := args[6].(global)
		if v.dtype = dtypes[string(name)]; v.dtype == nil {
			return nil, fmt.Errorf("its type is not a dtype")
		}
	} else if s.dtype.float == nil && s.dtype.int == nil && s.dtype.what == "" {
		return nil, fmt.Errorf("its storage has no type")
	}
	if v.dtype.what != "" {
		return &view{what: v.dtype.what}, nil
	}
	if v.offset, ok = args[1].(int64); !ok {
		return nil, fmt.Errorf("its offset is not a number")
	}
	if v.size, ok = integers(args[2]); !ok {
		return nil, fmt.Errorf("its size is not a tuple of numbers")
	}
	if v.stride, ok = integers(args[3]); !ok || len(v.stride) != len(v.size) {
		return nil, fmt.Errorf("its strides do not match its size")
	}
	return v, nil
}

// integers converts a tuple of at most 64 integers.
func integers(v any) ([]int64, bool) {
	t, ok := v.(tuple)
	if !ok || len(t) > 64 {
		return nil, false
	}
	ns := make([]int64, len(t))
	for i, x := range t {
		if ns[i], ok = x.(int64); !ok {
			return nil, false
		}
	}
	return ns, true
}
