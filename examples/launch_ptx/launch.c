/* Launches a model that `dlc compile --target sm_80 -o model.ptx` wrote, with the driver API alone:
 * what main.rs does, in C. Needs cuda.h and libcuda.
 *
 *     cc -O2 -o launch launch.c -lcuda && ./launch model.json ENTRY [NAME=FILE ...]
 *
 * A FILE holds the elements of a parameter, state or input, little-endian, row-major, without a
 * header; what is not given is 0. The first elements of every output are printed.
 */
#include <cuda.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void check(CUresult result, const char *what) {
    const char *why = "unknown error";
    if (result == CUDA_SUCCESS) return;
    cuGetErrorString(result, &why);
    die(what, why);
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path, "cannot be read");
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*bytes + 1);
    if (!text || fread(text, 1, *bytes, file) != *bytes) die(path, "cannot be read");
    text[*bytes] = 0;
    fclose(file);
    return text;
}

/* JSON, as far as model.json goes: a value is known by where its text begins. */

static const char *space(const char *at) {
    while (*at && strchr(" \t\r\n,:", *at)) at++;
    return at;
}

/* The end of the value that begins at `at`. */
static const char *skip(const char *at) {
    int depth = 0;
    do {
        if (*at == '"') {
            for (at++; *at && *at != '"'; at++)
                if (*at == '\\' && at[1]) at++;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            depth--;
        } else if (depth == 0) {
            while (*at && !strchr(",]} \t\r\n", *at)) at++;
            return at;
        }
        if (*at) at++;
    } while (depth > 0 && *at);
    return at;
}

static int has_text(const char *value, const char *text) {
    size_t length = strlen(text);
    return value && *value == '"' && !strncmp(value + 1, text, length) && value[length + 1] == '"';
}

/* The value of a field, or NULL. */
static const char *find(const char *object, const char *name) {
    const char *at = space(object + 1);
    while (*at == '"') {
        int found = has_text(at, name);
        at = space(skip(at));
        if (found) return at;
        at = space(skip(at));
    }
    return NULL;
}

static const char *field(const char *object, const char *name) {
    const char *value = find(object, name);
    if (!value) die(name, "is missing in model.json");
    return value;
}

/* The elements of an array in turn: NULL before the first and after the last. */
static const char *next(const char *array, const char *element) {
    const char *at = space(element ? skip(element) : array + 1);
    return *at == ']' || !*at ? NULL : at;
}

static const char *nth(const char *array, uint64_t position) {
    const char *element = next(array, NULL);
    while (element && position--) element = next(array, element);
    if (!element) die("model.json", "names an element that is missing");
    return element;
}

static uint64_t number(const char *value) { return strtoull(value, NULL, 10); }

static char *copy_text(const char *value) {
    size_t length = (size_t)(skip(value) - value) - 2;
    char *text = malloc(length + 1);
    if (!text) die("memory", "there is none");
    memcpy(text, value + 1, length);
    text[length] = 0;
    return text;
}

/* What all launches need, and the steps of the loops around, outermost first. */
struct driver {
    CUmodule module;
    const char *kernels;
    CUdeviceptr base;
    CUstream stream;
    uint64_t steps[16];
    int loops;
};

/* One launch; the machine is little-endian, as GPUs are: a word is the first bytes of its number. */
static void launch_one(struct driver *driver, const char *launch) {
    uint64_t values[256];
    void *pointers[256];
    int count = 0;
    const char *kernel = nth(driver->kernels, number(field(launch, "kernel")));
    const char *args = field(launch, "args"), *grid = field(launch, "grid");
    for (const char *arg = next(args, NULL); arg; arg = next(args, arg), count++) {
        const char *offset = find(arg, "address"), *step = find(arg, "step");
        if (count == 256) die("model.json", "has a launch of more than 256 arguments");
        values[count] = offset ? driver->base + number(offset)
                        : step ? driver->steps[number(step)] : number(field(arg, "word"));
        pointers[count] = &values[count];
    }
    char *name = copy_text(field(kernel, "name"));
    unsigned threads = (unsigned)number(field(kernel, "threads"));
    unsigned shared = (unsigned)number(field(kernel, "dynamic_shared_bytes"));
    CUfunction function;
    check(cuModuleGetFunction(&function, driver->module, name), name);
    if (shared)
        check(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                 (int)shared), name);
    check(cuLaunchKernel(function, (unsigned)number(nth(grid, 0)), (unsigned)number(nth(grid, 1)),
                         (unsigned)number(nth(grid, 2)), threads, 1, 1, shared, driver->stream,
                         pointers, NULL), name);
    free(name);
}

/* Launches in order, those of a loop again and again. */
static void launch_all(struct driver *driver, const char *launches) {
    for (const char *one = next(launches, NULL); one; one = next(launches, one)) {
        const char *repeat = find(one, "repeat");
        if (!repeat) {
            launch_one(driver, one);
            continue;
        }
        uint64_t *step = &driver->steps[driver->loops++];
        if (driver->loops > 16) die("model.json", "has more than 16 loops in one another");
        for (*step = 0; *step < number(repeat); ++*step) launch_all(driver, field(one, "launches"));
        driver->loops--;
    }
}

/* The launch of that position among all, those of loops among the others; counts down. */
static const char *listed(const char *launches, uint64_t *position) {
    for (const char *one = next(launches, NULL); one; one = next(launches, one)) {
        if (find(one, "repeat")) {
            const char *inner = listed(field(one, "launches"), position);
            if (inner) return inner;
        } else if ((*position)-- == 0) {
            return one;
        }
    }
    return NULL;
}

/* Gives a buffer its first value, if it is not 0. */
static void set(const char *buffer, char **given, int count, CUdeviceptr base) {
    char *name = copy_text(field(buffer, "name"));
    CUdeviceptr at = base + number(field(buffer, "offset"));
    const char *class = field(buffer, "class"), *value = find(buffer, "default");
    if (value) {
        double number = strtod(value, NULL);
        float real = (float)number;
        int32_t whole = (int32_t)number;
        int is_int = has_text(field(buffer, "dtype"), "i32");
        check(cuMemcpyHtoD(at, is_int ? (void *)&whole : (void *)&real, 4), name);
    }
    for (int i = 0; i < count; i++) {
        char *file = strchr(given[i], '=');
        if (!file) die(given[i], "expected NAME=FILE");
        int same = !strncmp(given[i], name, strlen(name)) && given[i] + strlen(name) == file;
        if (!same || has_text(class, "temp") || has_text(class, "output")) continue;
        size_t bytes;
        char *data = read_file(file + 1, &bytes);
        if (bytes != number(field(buffer, "bytes"))) die(file + 1, "has the wrong size");
        check(cuMemcpyHtoD(at, data, bytes), name);
        free(data);
    }
    free(name);
}

static void print(const char *buffer, CUdeviceptr base) {
    size_t bytes = number(field(buffer, "bytes"));
    char *name = copy_text(field(buffer, "name")), *data = malloc(bytes + 4);
    if (!data) die(name, "there is no memory");
    check(cuMemcpyDtoH(data, base + number(field(buffer, "offset")), bytes), name);
    printf("%s =", name);
    for (size_t i = 0; i < bytes / 4 && i < 8; i++)
        if (has_text(field(buffer, "dtype"), "i32")) printf(" %d", ((int32_t *)data)[i]);
        else printf(" %g", (double)((float *)data)[i]);
    printf(bytes > 32 ? " ..\n" : "\n");
    free(name);
    free(data);
}

int main(int argc, char **argv) {
    if (argc < 3) die("usage", "launch model.json ENTRY [NAME=FILE ...]");
    size_t bytes;
    const char *manifest = space(read_file(argv[1], &bytes));
    if (number(field(manifest, "version")) != 2) die(argv[1], "this reads version 2");
    char *name = copy_text(field(manifest, "ptx")), *slash = strrchr(argv[1], '/');
    char *path = calloc(strlen(argv[1]) + strlen(name) + 1, 1);
    if (slash) memcpy(path, argv[1], (size_t)(slash - argv[1]) + 1);
    char *ptx = read_file(strcat(path, name), &bytes);
    const char *entries = field(manifest, "entries"), *entry = next(entries, NULL);
    while (entry && !has_text(field(entry, "name"), argv[2])) entry = next(entries, entry);
    if (!entry) die(argv[2], "there is no such entry");

    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUstream stream;
    CUdeviceptr base;
    check(cuInit(0), "cuInit");
    check(cuDeviceGet(&device, 0), "cuDeviceGet");
    check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    check(cuModuleLoadData(&module, ptx), path);
    check(cuStreamCreate(&stream, CU_STREAM_DEFAULT), "cuStreamCreate");
    const char *memory = field(manifest, "memory"), *buffers = field(manifest, "buffers");
    check(cuMemAlloc(&base, number(field(memory, "bytes"))), "cuMemAlloc");
    check(cuMemsetD8(base, 0, number(field(memory, "bytes"))), "cuMemsetD8");
    for (const char *b = next(buffers, NULL); b; b = next(buffers, b)) set(b, argv + 3, argc - 3, base);

    const char *launches = field(entry, "launches"), *kernels = field(manifest, "kernels");
    struct driver driver = {module, kernels, base, stream, {0}, 0};
    launch_all(&driver, launches);
    check(cuStreamSynchronize(stream), "cuStreamSynchronize");
    uint32_t error[4];
    check(cuMemcpyDtoH(error, base + number(field(memory, "error_offset")), sizeof error), "error record");
    if (error[0]) {
        uint64_t position = error[0] - 1;
        const char *failed = listed(launches, &position);
        if (!failed) die("error record", "names a launch that is missing");
        die(copy_text(field(failed, "computes")), "an index is out of range, or a number not finite");
    }
    const char *outputs = field(entry, "outputs");
    for (const char *o = next(outputs, NULL); o; o = next(outputs, o)) print(nth(buffers, number(o)), base);
    return 0;
}
