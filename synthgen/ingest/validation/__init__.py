"""Dataset validation (`synthgen doctor`): boxes, ids, categories, splits and image files. Changes nothing."""
