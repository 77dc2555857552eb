// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/priorities.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_allowed(const CUlaunchAttribute *attribute)
{
    return attribute->id != CU_LAUNCH_ATTRIBUTE_PRIORITY || attribute->value.priority >= PRIORITY_LOWEST ||
           priority_allowed(device_current(), attribute->value.priority) == attribute->value.priority;
}

const CUlaunchConfig *priority_launch(const CUlaunchConfig *config, CUlaunchConfig *copy)
{
    unsigned int count = config && config->attrs ? config->numAttrs : 0, first = 0;
    while (first < count && is_allowed(&config->attrs[first]))
        first++;
    if (__builtin_expect(first == count, 1))
        return config;

    int saved = errno;
    CUlaunchAttribute *attributes = malloc(count * sizeof *attributes);
    errno = saved;
    if (!attributes)
        return config;
    memcpy(attributes, config->attrs, count * sizeof *attributes);
    for (unsigned int i = first; i < count; i++)
        if (!is_allowed(&attributes[i]))
            attributes[i].value.priority = PRIORITY_LOWEST;
    *copy = *config;
    copy->attrs = attributes;
    return copy;
}

// The value to set: the given one, or a copy with the allowed priority.
static const CUlaunchAttributeValue *allowed_value(CUlaunchAttributeID id, const CUlaunchAttributeValue *value,
                                                   CUlaunchAttributeValue *copy)
{
    if (id != CU_LAUNCH_ATTRIBUTE_PRIORITY || !value)
        return value;
    *copy = *value;
    copy->priority = priority_allowed(device_current(), value->priority);
    return copy;
}

CUresult cuStreamSetAttribute(CUstream stream, CUstreamAttrID id, const CUstreamAttrValue *value)
{
    CUstreamAttrValue copy;
    return REAL(cuStreamSetAttribute)(stream, id, allowed_value(id, value, &copy));
}

CUresult cuStreamSetAttribute_ptsz(CUstream stream, CUstreamAttrID id, const CUstreamAttrValue *value)
{
    CUstreamAttrValue copy;
    return REAL(cuStreamSetAttribute_ptsz)(stream, id, allowed_value(id, value, &copy));
}

CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, CUkernelNodeAttrID id, const CUkernelNodeAttrValue *value)
{
    CUkernelNodeAttrValue copy;
    return REAL(cuGraphKernelNodeSetAttribute)(node, id, allowed_value(id, value, &copy));
}
