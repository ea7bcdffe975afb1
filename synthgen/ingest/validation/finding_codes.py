"""The codes of findings about a dataset, and what they mean."""

from __future__ import annotations

from synthgen.records.sample import ANNOTATION_FLAGS

#: The codes of findings, beside the flags of boxes, and what they mean.
FINDING_CODES: dict[str, str] = {
    **ANNOTATION_FLAGS,
    "near_duplicate": "an earlier box of the same image and category covers nearly the same place (IoU >= 0.95)",
    "normalised_boxes": "the boxes seem to be fractions of the image; they should be in pixels",
    "percent_boxes": "the boxes seem to be percentages of the image; they should be in pixels",
    "permille_boxes": "the boxes seem to be on a scale of 0 to 1000; they should be in pixels",
    "xyxy_boxes": "the boxes seem to be x1, y1, x2, y2; they should be x, y, width, height",
    "yxyx_boxes": "the boxes seem to be y1, x1, y2, x2; they should be x, y, width, height",
    "centre_boxes": "x and y seem to be the centre of each box; they should be its upper left corner",
    "exchanged_axes": "x and y, and width and height, seem to be exchanged; or those of the images are",
    "corners_as_centres": "the file seems to give the corner of each box where its format has the centre",
    "pixels_as_fractions": "the file seems to give pixels where its format has fractions of the image",
    "percent_as_fractions": "the file seems to give percentages where its format has fractions of the image",
    "misfit_boxes": "many boxes reach far beyond their images",
    "one_based_boxes": "the first pixel seems to have number 1, as in Pascal VOC; the boxes are shifted by one pixel",
    "all_crowds": "nearly all annotations are crowds (iscrowd 1), which get no mask; CVAT marks all objects "
    "with an RLE mask so",
    "few_usable": "few of the boxes, or none, can be given to a segmenter",
    "unlisted_image": "an annotation names an image that the file does not list",
    "same_annotation_id": "an annotation has the id of another one of its image",
    "same_annotation_id_elsewhere": "an annotation has the id of one in another image",
    "same_image_id": "an image has the id of another one; ingest refuses it, as their boxes cannot be told apart",
    "repeated_image": "an image is listed again, with the same id and file name; it is one image",
    "root_category": "a category is only the supercategory of others; it is left out of the names",
    "same_file_name": "an image has the file name of another one",
    "no_file_name": "the file gives no name for an image; it stays, as a row with an error",
    "no_boxes": "an image without a box; it stays, as a row with none",
    "no_labels": "an image's mask or label map is missing, unreadable or of another size, or has no image; it stays, "
    "as a row with an error",
    "pixel_rows": "a row of a label file is in pixels or percent; it should be in fractions of the image, 0 to 1",
    "broken_row": "a row of an annotation file cannot be read; its object stays, without a box",
    "label_without_image": "an annotation file without an image; its objects are left out",
    "no_label_file": "an image without a label file; it counts as an image without objects",
    "shared_label_file": "two images have one label file; the first one gets it, the other stays, with an error",
    "broken_list_line": "a line of a list of images names no image, or one a second time; it is left out",
    "unread_labels": "another folder of labels for the same images; it is not read",
    "broken_csv_line": "a line of a CSV file cannot be read; it is left out",
    "absent_image": "the annotations name an image that is not in the folder; its boxes are left out",
    "image_not_named": "an image that no annotation file of this split names; it is left out",
    "rotation_ignored": "the release says that an image stands on its side; image and boxes stay as they are",
    "split_not_found": "the dataset's own file names a split that is not below its folder",
    "unlabeled_split": "a split has images and no labels; it is not read",
    "mixed_rows": "some objects have a box and others a polygon; each is read as what it is",
    "keypoints_ignored": "an object has keypoints; only its box is used",
    "confidence_ignored": "a row ends with a confidence, as predictions do; only its box is used",
    "class_outside_names": "a class without a name; its boxes stay, as unknown_category",
    "no_class_names": "nothing names the classes; they are called by their numbers or ids",
    "other_class_count": "the number of classes (nc) is not the number of names; the names count",
    "unused_category": "a category without a box",
    "damaged_archive": "an archive is cut off or damaged; what lies before the damage is read",
    "refused_members": "a member of an archive is a link, a device or a sparse file, or its name leaves the archive",
    "duplicate_members": "an archive has several members of one name; the last one is used, as tar does",
    "ignored_members": "a member of an archive is neither an image nor an annotation; it is not read",
    "outer_blanks": "a category's name has blanks around it; they are stripped",
    "same_name": "a category has the name of another one; both become one, as names are what is stored",
    "hidden_characters": "a category's name holds characters that are not seen; it stays as it is",
    "looks_the_same": "a category's name looks like another's and has other characters; they stay two",
    "nearly_same_name": "a category's name differs from another's only in case or blanks; they stay two",
    "missing": "an image has no file below the image folder",
    "unreadable": "an image file is truncated, or none",
    "wrong_size": "an image file has another size than the annotations say",
    "exchanged_size": "the annotations have an image's width and height exchanged, or the image was turned",
    "size_off_by_one": "an image file is one pixel larger or smaller than the annotations say",
    "other_name": "a missing image's file is there under another form of its name; --match-names accepts it",
    "matched_name": "an image's file was found under another form of its name (--match-names)",
    "unclear_name": "a missing image's file may be there, but it is not clear which one it is",
    "other_unicode_form": "an image file's name has the same letters in another Unicode form (NFC, NFD); it is used",
    "too_many_lost": "a shard with more than 5 % of its images lost is not committed",
    "unlabeled_image": "an image that no annotation belongs to; it is not part of the dataset",
    "same_stem": "an image has the name of another one but for the suffix; the annotations belong to the first",
    "foreign_file": "a file among the annotation files is not of their format; it is not read",
    "not_an_object": "a shape without an area, such as a line, a point or a skeleton, or a part of an object; it is "
    "not read",
    "ignored_region": "a region that the source marks to be ignored; it is not read",
    "unlisted_subset": "an image or a track is of a subset that the start of the file does not name; no split has it",
    "class_attribute": "the regions have several attributes, and one of them was taken as the class; see the examples",
    "several_labels": "an object has several labels; the first one is its category",
    "annotated_turned": "an image was turned in the annotation tool; check whether its boxes are of the turned image",
    "several_annotations": "an image was annotated several times; one annotation of it is read",
    "ignored_prediction": "a region that a model predicted; it is not read",
    "unreadable_line": "a line of an annotation file cannot be read; it is left out",
    "machine_masks": "a mask that a machine drew, as the file says; the layer human refuses it, and "
    "`synthgen import-masks` takes it",
    "mask_without_object": "a mask belongs to no object of the annotation file; it is not read",
    "turned": "an image file is to be shown rotated (EXIF); it is used as the annotations' size says",
    "other_path": "an image was found without the first folders of its name: they are not below the image folder",
    "id_renamed": "a category id has another name in this split; names decide here, but tools that go by id go wrong",
    "not_in_split": "a category is named in another split and not in this one",
    "other_order": "the categories of this split are in another order; names decide here, but tools that go by "
    "position go wrong",
}

#: Findings about the whole stream because of which `ingest` refuses a file.
REFUSED_CODES = frozenset({"same_image_id"})

#: Findings that need no fix.
INFO_CODES = frozenset(
    {"crowd", "fake", "reflected", "no_boxes", "unused_category", "outer_blanks", "turned", "other_path", "clipped"}
    | {"one_based_boxes", "matched_name", "other_unicode_form"}
    | {"difficult", "rotated", "unlabeled_image", "not_an_object", "ignored_region", "ignored_prediction"}
    | {"flat_polygon", "ignored", "root_category", "repeated_image", "ignored_members"}
    | {"part", "same_annotation_id_elsewhere", "not_in_split", "other_order", "id_renamed", "nearly_same_name"}
    | {"no_label_file", "split_not_found", "unlabeled_split", "mixed_rows", "keypoints_ignored", "confidence_ignored"}
    | {"machine_masks", "unread_labels", "absent_image", "image_not_named", "rotation_ignored"}
)
