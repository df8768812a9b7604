// The part of ONNX Runtime's C interface that this package calls.
//
// The interface is one table of functions that only ever grows, so a function is
// known by its place in the table. SLUICE_ORT_API is the oldest version of the table
// that has every place named here.
#ifndef SLUICE_ORT_API_H
#define SLUICE_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define SLUICE_ORT_API 24

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtShape OrtShape; // OrtTensorTypeAndShapeInfo
typedef struct OrtProviderOptions OrtProviderOptions; // of CUDA or of TensorRT

typedef struct {
  void *const *(*get_api)(uint32_t version);
  const char *(*version)(void);
} OrtBase;

// Places in the table.
enum {
  FN_ErrorCode = 1,
  FN_ErrorMessage = 2,
  FN_CreateEnv = 3,
  FN_DisableTelemetryEvents = 6,
  FN_CreateSession = 7,
  FN_Run = 9,
  FN_CreateSessionOptions = 10,
  FN_SetOptimizedModelFilePath = 11,
  FN_SetExecutionMode = 13,
  FN_DisableMemPattern = 17,
  FN_DisableCpuMemArena = 19,
  FN_SetGraphOptimizationLevel = 23,
  FN_SetIntraOpNumThreads = 24,
  FN_SetInterOpNumThreads = 25,
  FN_SessionGetInputCount = 30,
  FN_SessionGetOutputCount = 31,
  FN_SessionGetInputTypeInfo = 33,
  FN_SessionGetOutputTypeInfo = 34,
  FN_SessionGetInputName = 36,
  FN_SessionGetOutputName = 37,
  FN_CreateRunOptions = 39,
  FN_RunOptionsSetTerminate = 46,
  FN_RunOptionsUnsetTerminate = 47,
  FN_CreateTensor = 48,
  FN_CreateTensorWithData = 49,
  FN_GetTensorMutableData = 51,
  FN_GetStringTensorDataLength = 53,
  FN_GetStringTensorContent = 54,
  FN_CastTypeInfoToTensorInfo = 55,
  FN_GetOnnxTypeFromTypeInfo = 56,
  FN_GetTensorElementType = 60,
  FN_GetDimensionsCount = 61,
  FN_GetDimensions = 62,
  FN_GetSymbolicDimensions = 63,
  FN_GetTensorShapeElementCount = 64,
  FN_GetTensorTypeAndShape = 65,
  FN_GetValueType = 67,
  FN_CreateCpuMemoryInfo = 69,
  FN_AllocatorFree = 76,
  FN_GetAllocatorWithDefaultOptions = 78,
  FN_ReleaseEnv = 92,
  FN_ReleaseStatus = 93,
  FN_ReleaseMemoryInfo = 94,
  FN_ReleaseSession = 95,
  FN_ReleaseValue = 96,
  FN_ReleaseRunOptions = 97,
  FN_ReleaseTypeInfo = 98,
  FN_ReleaseTensorTypeAndShapeInfo = 99,
  FN_ReleaseSessionOptions = 100,
  FN_GetAvailableProviders = 125,
  FN_ReleaseAvailableProviders = 126,
  FN_AddSessionConfigEntry = 130,
  FN_AppendTensorRT = 170,
  FN_CreateTensorRTProviderOptions = 171,
  FN_UpdateTensorRTProviderOptions = 172,
  FN_ReleaseTensorRTProviderOptions = 174,
  FN_AppendCUDA = 204,
  FN_CreateCUDAProviderOptions = 205,
  FN_UpdateCUDAProviderOptions = 206,
  FN_ReleaseCUDAProviderOptions = 208,
  FN_AppendProvider = 216,
  FN_GetResizedStringTensorElementBuffer = 252,
  FN_AppendOpenVINO = 275,
};

// Element types and kinds of values, as numbered by ONNX Runtime.
enum { ELEM_STRING = 8 };
enum { KIND_TENSOR = 1 };
enum { CODE_FAIL = 1, CODE_INVALID_ARGUMENT = 2 };

#endif
