#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// CALL(lib, CreateEnv, (types))(arguments): a function of the table that returns a status.
#define CALL(lib, name, types) ((OrtStatus * (*)types)(lib)->fn[FN_##name])
#define RELEASE(lib, name, p) ((void (*)(void *))(lib)->fn[FN_Release##name])(p)
#define TRY(expr)                  \
  do {                             \
    OrtStatus *try_status = (expr); \
    if (try_status != NULL) return try_status; \
  } while (0)

static OrtStatus *lib_init(sl_lib *lib) {
  TRY(CALL(lib, CreateEnv, (int, const char *, OrtEnv **))(4, "sluice", &lib->env));
  TRY(CALL(lib, DisableTelemetryEvents, (const OrtEnv *))(lib->env));
  TRY(CALL(lib, CreateCpuMemoryInfo, (int, int, OrtMemoryInfo **))(1, 0, &lib->cpu));

  return CALL(lib, GetAllocatorWithDefaultOptions, (OrtAllocator **))(&lib->heap);
}

// What has to be settled before there is a second thread, and before the library is opened.
//
// Large blocks (weights, arenas) get mappings of their own, so that freeing a model really gives
// its memory back: left alone, glibc raises the threshold as it sees large blocks freed. Few heaps
// keep the small blocks of models together; a heap that exists when the limit is set stays in use.
//
// ONNX Runtime 1.30 keeps events about every session for its maker and sends them over the network.
// A model server has no business doing so, and the events pile up in memory: 5 KB for each load.
__attribute__((constructor)) static void settle(void) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_ARENA_MAX, 2);
#endif
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
}

char *sl_open(const char *path, sl_lib **out) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) return strdup(dlerror());

  const OrtBase *(*base)(void) = (const OrtBase *(*)(void))dlsym(handle, "OrtGetApiBase");
  if (base == NULL) return strdup("it is not an ONNX Runtime library");

  sl_lib *lib = calloc(1, sizeof *lib);
  if (lib == NULL) return strdup("out of memory");
  lib->version = base()->version();
  lib->fn = base()->get_api(SLUICE_ORT_API);
  if (lib->fn == NULL) {
    free(lib);
    return strdup("it is too old; version 1.24 or newer is needed");
  }

  OrtStatus *status = lib_init(lib);
  if (status != NULL) {
    int code;
    char *text = sl_status(lib, status, &code);
    sl_close(lib);
    return text;
  }

  *out = lib;
  return NULL;
}

// The library stays mapped: its threads and thread-local data outlive any handle.
void sl_close(sl_lib *lib) {
  if (lib->cpu != NULL) RELEASE(lib, MemoryInfo, lib->cpu);
  if (lib->env != NULL) RELEASE(lib, Env, lib->env);
  free(lib);
}

int sl_providers(sl_lib *lib, char ***names) {
  int n = 0;
  OrtStatus *status = CALL(lib, GetAvailableProviders, (char ***, int *))(names, &n);
  if (status != NULL) {
    RELEASE(lib, Status, status);
    return 0;
  }

  return n;
}

void sl_providers_free(sl_lib *lib, char **names, int n) {
  OrtStatus *status = CALL(lib, ReleaseAvailableProviders, (char **, int))(names, n);
  if (status != NULL) RELEASE(lib, Status, status);
}

char *sl_status(sl_lib *lib, OrtStatus *status, int *code) {
  *code = ((int (*)(const OrtStatus *))lib->fn[FN_ErrorCode])(status);
  char *text = strdup(((const char *(*)(const OrtStatus *))lib->fn[FN_ErrorMessage])(status));
  RELEASE(lib, Status, status);

  return text;
}

static OrtStatus *options_fill(sl_lib *lib, const sl_options *o, OrtSessionOptions *so) {
  TRY(CALL(lib, SetIntraOpNumThreads, (OrtSessionOptions *, int))(so, o->intra_threads));
  TRY(CALL(lib, SetInterOpNumThreads, (OrtSessionOptions *, int))(so, o->inter_threads));
  TRY(CALL(lib, SetExecutionMode, (OrtSessionOptions *, int))(so, o->inter_threads > 1));
  // Spinning pool threads would take the cores from the other executors.
  OrtStatus *(*entry)(OrtSessionOptions *, const char *, const char *) =
      CALL(lib, AddSessionConfigEntry, (OrtSessionOptions *, const char *, const char *));
  TRY(entry(so, "session.intra_op.allow_spinning", "0"));
  TRY(entry(so, "session.inter_op.allow_spinning", "0"));

  if (o->no_arena) {
    TRY(CALL(lib, DisableCpuMemArena, (OrtSessionOptions *))(so));
    TRY(CALL(lib, DisableMemPattern, (OrtSessionOptions *))(so));
  }

  TRY(CALL(lib, SetGraphOptimizationLevel, (OrtSessionOptions *, int))(so, o->optimise ? 99 : 0));
  if (o->save_optimised == NULL) return NULL;

  return CALL(lib, SetOptimizedModelFilePath, (OrtSessionOptions *, const char *))(so, o->save_optimised);
}

OrtStatus *sl_options_new(sl_lib *lib, const sl_options *o, OrtSessionOptions **out) {
  TRY(CALL(lib, CreateSessionOptions, (OrtSessionOptions **))(out));

  OrtStatus *status = options_fill(lib, o, *out);
  if (status != NULL) sl_options_free(lib, *out);

  return status;
}

void sl_options_free(sl_lib *lib, OrtSessionOptions *o) { RELEASE(lib, SessionOptions, o); }

typedef OrtStatus *(*append_named)(OrtSessionOptions *, const char *, const char *const *, const char *const *,
                                   size_t);
typedef OrtStatus *(*append_keys)(OrtSessionOptions *, const char *const *, const char *const *, size_t);
typedef OrtStatus *(*append_struct)(OrtSessionOptions *, const OrtProviderOptions *);
typedef OrtStatus *(*create_struct)(OrtProviderOptions **);
typedef OrtStatus *(*update_struct)(OrtProviderOptions *, const char *const *, const char *const *, size_t);

static OrtStatus *append_v2(sl_lib *lib, OrtSessionOptions *o, int create, const char *const *keys,
                            const char *const *values, size_t n, int append) {
  int update = create + 1, release = create + 3; // the same order for both providers
  OrtProviderOptions *p = NULL;
  TRY(((create_struct)lib->fn[create])(&p));

  OrtStatus *status = NULL;
  if (n > 0) status = ((update_struct)lib->fn[update])(p, keys, values, n);
  if (status == NULL) status = ((append_struct)lib->fn[append])(o, p);
  ((void (*)(OrtProviderOptions *))lib->fn[release])(p);

  return status;
}

OrtStatus *sl_append(sl_lib *lib, OrtSessionOptions *o, int how, const char *name, const char *const *keys,
                     const char *const *values, size_t n) {
  switch (how) {
    case SL_APPEND_CUDA:
      return append_v2(lib, o, FN_CreateCUDAProviderOptions, keys, values, n, FN_AppendCUDA);
    case SL_APPEND_TENSORRT:
      return append_v2(lib, o, FN_CreateTensorRTProviderOptions, keys, values, n, FN_AppendTensorRT);
    case SL_APPEND_OPENVINO:
      return ((append_keys)lib->fn[FN_AppendOpenVINO])(o, keys, values, n);
    default:
      return ((append_named)lib->fn[FN_AppendProvider])(o, name, keys, values, n);
  }
}

static OrtStatus *read_shape(sl_lib *lib, const OrtShape *shape, int *elem, int64_t *rank, int64_t *dims) {
  size_t n = 0;
  TRY(CALL(lib, GetTensorElementType, (const OrtShape *, int *))(shape, elem));
  TRY(CALL(lib, GetDimensionsCount, (const OrtShape *, size_t *))(shape, &n));
  *rank = (int64_t)n;
  if (n == 0 || n > SL_MAX_RANK) return NULL;

  return CALL(lib, GetDimensions, (const OrtShape *, int64_t *, size_t))(shape, dims, n);
}

static OrtStatus *read_type(sl_lib *lib, OrtTypeInfo *type, sl_info *info) {
  TRY(CALL(lib, GetOnnxTypeFromTypeInfo, (const OrtTypeInfo *, int *))(type, &info->kind));
  if (info->kind != KIND_TENSOR) return NULL;

  const OrtShape *shape = NULL;
  TRY(CALL(lib, CastTypeInfoToTensorInfo, (const OrtTypeInfo *, const OrtShape **))(type, &shape));
  TRY(read_shape(lib, shape, &info->elem, &info->rank, info->dims));
  if (info->rank == 0 || info->rank > SL_MAX_RANK) return NULL;

  const char *symbols[SL_MAX_RANK] = {0};
  TRY(CALL(lib, GetSymbolicDimensions, (const OrtShape *, const char **, size_t))(shape, symbols, info->rank));
  for (int64_t i = 0; i < info->rank; i++) info->symbols[i] = strdup(symbols[i] ? symbols[i] : "");

  return NULL;
}

static OrtStatus *read_info(sl_lib *lib, OrtSession *s, size_t i, int output, sl_info *info) {
  char *name = NULL;
  OrtTypeInfo *type = NULL;
  int get_name = output ? FN_SessionGetOutputName : FN_SessionGetInputName;
  int get_type = output ? FN_SessionGetOutputTypeInfo : FN_SessionGetInputTypeInfo;

  TRY(((OrtStatus * (*)(const OrtSession *, size_t, OrtAllocator *, char **)) lib->fn[get_name])(s, i, lib->heap,
                                                                                                 &name));
  info->name = strdup(name);
  OrtStatus *status = CALL(lib, AllocatorFree, (OrtAllocator *, void *))(lib->heap, name);
  if (status != NULL) return status;

  TRY(((OrtStatus * (*)(const OrtSession *, size_t, OrtTypeInfo **)) lib->fn[get_type])(s, i, &type));
  status = read_type(lib, type, info);
  RELEASE(lib, TypeInfo, type);

  return status;
}

static OrtStatus *session_fill(sl_lib *lib, sl_session *s) {
  TRY(CALL(lib, SessionGetInputCount, (const OrtSession *, size_t *))(s->ort, &s->inputs));
  TRY(CALL(lib, SessionGetOutputCount, (const OrtSession *, size_t *))(s->ort, &s->outputs));
  s->info = calloc(s->inputs + s->outputs + 1, sizeof *s->info);
  for (size_t i = 0; i < s->inputs; i++) TRY(read_info(lib, s->ort, i, 0, &s->info[i]));
  for (size_t i = 0; i < s->outputs; i++) TRY(read_info(lib, s->ort, i, 1, &s->info[s->inputs + i]));

  return NULL;
}

OrtStatus *sl_session_new(sl_lib *lib, const char *path, OrtSessionOptions *o, sl_session **out) {
  sl_session *s = calloc(1, sizeof *s);
  OrtStatus *status = CALL(lib, CreateSession, (const OrtEnv *, const char *, const OrtSessionOptions *,
                                                OrtSession **))(lib->env, path, o, &s->ort);
  if (status == NULL) status = session_fill(lib, s);
  if (status != NULL) {
    sl_session_free(lib, s);
    return status;
  }

  *out = s;
  return NULL;
}

void sl_session_free(sl_lib *lib, sl_session *s) {
  if (s->ort != NULL) RELEASE(lib, Session, s->ort);
  for (size_t i = 0; s->info != NULL && i < s->inputs + s->outputs; i++) {
    free(s->info[i].name);
    for (int j = 0; j < SL_MAX_RANK; j++) free(s->info[i].symbols[j]);
  }
  free(s->info);
  free(s);
}

OrtStatus *sl_run_new(sl_lib *lib, sl_session *s, sl_run **out) {
  sl_run *r = calloc(1, sizeof *r);
  r->inputs = s->inputs;
  r->in = calloc(s->inputs + 1, sizeof *r->in);
  r->out = calloc(s->outputs + 1, sizeof *r->out);
  r->in_names = calloc(s->inputs + 1, sizeof *r->in_names);
  r->out_names = calloc(s->outputs + 1, sizeof *r->out_names);
  r->in_values = calloc(s->inputs + 1, sizeof *r->in_values);
  r->out_values = calloc(s->outputs + 1, sizeof *r->out_values);
  r->text = calloc(s->outputs + 1, sizeof *r->text);
  for (size_t i = 0; i < s->inputs; i++) r->in_names[i] = s->info[i].name;

  OrtStatus *status = CALL(lib, CreateRunOptions, (OrtRunOptions **))(&r->options);
  if (status != NULL) {
    sl_run_free(lib, r);
    return status;
  }

  *out = r;
  return NULL;
}

void sl_run_free(sl_lib *lib, sl_run *r) {
  if (r->options != NULL) RELEASE(lib, RunOptions, r->options);
  free(r->in);
  free(r->out);
  free(r->in_names);
  free(r->out_names);
  free(r->in_values);
  free(r->out_values);
  free(r->text);
  free(r);
}

// A string tensor is filled from length-prefixed elements; the caller has checked them.
static OrtStatus *make_strings(sl_lib *lib, const sl_tensor *t, OrtValue **value) {
  TRY(CALL(lib, CreateTensor, (OrtAllocator *, const int64_t *, size_t, int, OrtValue **))(
      lib->heap, t->dims, (size_t)t->rank, ELEM_STRING, value));

  const unsigned char *p = t->data;
  for (size_t i = 0; i < t->count; i++) {
    size_t n = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    char *to = NULL;
    TRY(CALL(lib, GetResizedStringTensorElementBuffer, (OrtValue *, size_t, size_t, char **))(*value, i, n, &to));
    memcpy(to, p + 4, n);
    p += 4 + n;
  }

  return NULL;
}

static OrtStatus *make_inputs(sl_lib *lib, sl_run *r) {
  static char nothing[16];

  for (size_t i = 0; i < r->inputs; i++) {
    sl_tensor *t = &r->in[i];
    if (t->elem == ELEM_STRING) {
      TRY(make_strings(lib, t, &r->in_values[i]));
      continue;
    }
    TRY(CALL(lib, CreateTensorWithData, (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int,
                                         OrtValue **))(lib->cpu, t->data ? t->data : nothing, t->bytes, t->dims,
                                                       (size_t)t->rank, t->elem, &r->in_values[i]));
  }

  return NULL;
}

static void free_inputs(sl_lib *lib, sl_run *r) {
  for (size_t i = 0; i < r->inputs; i++) {
    if (r->in_values[i] != NULL) RELEASE(lib, Value, r->in_values[i]);
    r->in_values[i] = NULL;
  }
}

static void put_length(unsigned char *p, size_t n) {
  for (int i = 0; i < 4; i++) p[i] = (unsigned char)(n >> (8 * i));
}

// read_strings copies the elements into one block in the length-prefixed form.
static OrtStatus *read_strings(sl_lib *lib, OrtValue *v, sl_tensor *t, void **block) {
  size_t total = 0;
  TRY(CALL(lib, GetStringTensorDataLength, (const OrtValue *, size_t *))(v, &total));

  size_t *offsets = malloc((t->count + 1) * sizeof *offsets);
  char *text = malloc(total + 1);
  OrtStatus *status = CALL(lib, GetStringTensorContent, (const OrtValue *, void *, size_t, size_t *, size_t))(
      v, text, total, offsets, t->count);
  if (status == NULL) {
    offsets[t->count] = total;
    t->bytes = total + 4 * t->count;
    unsigned char *to = *block = t->data = malloc(t->bytes + 1);
    for (size_t i = 0; i < t->count; i++) {
      size_t n = offsets[i + 1] - offsets[i];
      put_length(to, n);
      memcpy(to + 4, text + offsets[i], n);
      to += 4 + n;
    }
  }
  free(offsets);
  free(text);

  return status;
}

static OrtStatus *read_output(sl_lib *lib, sl_run *r, size_t i) {
  sl_tensor *t = &r->out[i];
  OrtShape *shape = NULL;
  t->data = NULL;
  t->bytes = 0;
  TRY(CALL(lib, GetTensorTypeAndShape, (const OrtValue *, OrtShape **))(r->out_values[i], &shape));
  OrtStatus *status = read_shape(lib, shape, &t->elem, &t->rank, t->dims);
  if (status == NULL)
    status = CALL(lib, GetTensorShapeElementCount, (const OrtShape *, size_t *))(shape, &t->count);
  RELEASE(lib, TensorTypeAndShapeInfo, shape);
  if (status != NULL || t->count == 0) return status;
  if (t->elem == ELEM_STRING) return read_strings(lib, r->out_values[i], t, &r->text[i]);

  return CALL(lib, GetTensorMutableData, (OrtValue *, void **))(r->out_values[i], &t->data);
}

OrtStatus *sl_run_exec(sl_lib *lib, sl_session *s, sl_run *r) {
  OrtStatus *status = make_inputs(lib, r);
  if (status == NULL)
    status = CALL(lib, Run, (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *,
                             size_t, const char *const *, size_t, OrtValue **))(
        s->ort, r->options, r->in_names, (const OrtValue *const *)r->in_values, r->inputs, r->out_names, r->outputs,
        r->out_values);
  free_inputs(lib, r);

  for (size_t i = 0; status == NULL && i < r->outputs; i++) status = read_output(lib, r, i);
  if (status != NULL) sl_run_clear(lib, r);

  return status;
}

void sl_run_clear(sl_lib *lib, sl_run *r) {
  for (size_t i = 0; i < r->outputs; i++) {
    if (r->out_values[i] != NULL) RELEASE(lib, Value, r->out_values[i]);
    r->out_values[i] = NULL;
    free(r->text[i]);
    r->text[i] = NULL;
  }
}

void sl_run_terminate(sl_lib *lib, sl_run *r, int on) {
  OrtStatus *status = on ? CALL(lib, RunOptionsSetTerminate, (OrtRunOptions *))(r->options)
                         : CALL(lib, RunOptionsUnsetTerminate, (OrtRunOptions *))(r->options);
  if (status != NULL) RELEASE(lib, Status, status);
}

void sl_trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
